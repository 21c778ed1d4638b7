"""vLLM inside the worker process. It is imported in the files called ``vllm`` alone, and only when opened.

An engine runs in one of two ways. *Alone*: a shard is generated with nothing else in the engine, so the batches that
vLLM forms, and with them the last bits of every log-prob, do not depend on what ran before or beside it; one machine
repeats itself byte for byte. *Overlapping*: ``AsyncLLM`` serves two shards at a time, the next one filling the batch
while the last answers of this one are written; texts are the same but for ties in the last bit.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from pipeline.base import model_names as models
from pipeline.base.chat_template import unshown
from pipeline.base.images import pixels
from pipeline.engines import engine_args
from pipeline.engines.protocol import Request, Response, Sampling, unservable
from pipeline.engines.vllm_requests import How, conversation, first_line, refusal, refusals
from pipeline.engines.vllm_start import (
    IMAGES_ONLY,
    cpu_options,
    opened,
    processor_limits,
    runs_on_cpu,
    step_limits,
    turn_on_card,
)

Prompt = dict[str, Any]
#: How often a request is put to ``AsyncLLM`` whose image its core has lost: it is sent anew then.
_TRIES = 3


@dataclass(frozen=True)
class OpenVllm:
    """Opens a ``VllmEngine``. ``model`` is a folder or hub id, ``dtype="auto"`` is float32 on CPU, ``chat_template``
    the text of a Jinja template. No prompt has more than ``most_images`` images; None: nobody knows. For the other
    options see ``pipeline.sampling.config``."""

    model: str
    revision: str | None = None
    chat_template: str | None = None
    max_image_pixels: int | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float = 0.9
    gpus: float | None = None
    tensor_parallel_size: int = 1
    load_format: str = "safetensors"
    trust_remote_code: bool = False
    overlap: bool | None = None
    late_decode: bool = True
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    most_images: int | None = None

    def __call__(self) -> VllmEngine:
        """
        Raises:
            ConfigError: one of ``engine_args`` is none of vLLM's.
            EngineError: vLLM is not installed, or the model is missing or cannot be loaded.
        """
        engine_args.check(self.engine_args)
        models.require_folder(self.model, "config.json")
        on_cpu = runs_on_cpu()
        overlap = self.overlap if self.overlap is not None else not on_cpu
        options = self._options(on_cpu)
        with turn_on_card(self.gpus), opened(self.model):
            return VllmEngine(Overlapping(options) if overlap else Alone(options), self)

    def for_images(self, most: int | None) -> OpenVllm:
        """The same for prompts of at most ``most`` images."""
        return replace(self, most_images=most)

    def _options(self, on_cpu: bool) -> dict[str, Any]:
        usual = {
            "model": self.model,
            "revision": self.revision,
            "dtype": "float32" if on_cpu and self.dtype == "auto" else self.dtype,
            "max_model_len": self.max_model_len,
            "gpu_memory_utilization": self.gpu_memory_utilization * (self.gpus or 1),
            "tensor_parallel_size": self.tensor_parallel_size,
            "load_format": self.load_format,
            "trust_remote_code": self.trust_remote_code,
            "disable_log_stats": True,
            # The defaults of the model's author would silently change top_p, top_k or the repetition penalty.
            "generation_config": "vllm",
            **step_limits(on_cpu, self.max_num_seqs, self.max_num_batched_tokens, self.gpus),
            **(cpu_options() if on_cpu else {}),
        }
        images = {} if self.most_images is None else {"image": self.most_images}
        merged = {
            "limit_mm_per_prompt": {**IMAGES_ONLY, **images},
            "mm_processor_kwargs": processor_limits(self.model, self.revision, self.max_image_pixels),
        }
        given = dict(self.engine_args)
        for key, ours in merged.items():
            if both := {**ours, **(given.get(key) or {})}:
                given[key] = both
        return {**usual, **given}


class _Runner(Protocol):
    """``run`` answers every prompt that ``make`` could make; may be called from several threads."""

    config: Any
    max_num_seqs: int

    def run(
        self, requests: Sequence[Request], make: Callable[[Request], Prompt | Response], how: How
    ) -> Iterator[Response]: ...

    def unfinished_count(self) -> int: ...

    def close(self) -> None: ...


class VllmEngine:
    """An open engine. ``generate`` may be called from several threads."""

    def __init__(self, runner: _Runner, spec: OpenVllm) -> None:
        from transformers import AutoProcessor

        self._runner, self._spec = runner, spec
        # A text-only model has no processor; AutoProcessor then returns the tokenizer, which has the template as well.
        self._processor = AutoProcessor.from_pretrained(
            runner.config.model, revision=runner.config.revision, trust_remote_code=spec.trust_remote_code
        )
        self._tokenizer = tokenizer = getattr(self._processor, "tokenizer", self._processor)
        # vLLM adds it to every prompt; a template that writes it as well would double it (Gemma 3, Idefics3).
        self._doubled = tokenizer.bos_token if tokenizer.bos_token_id in tokenizer("").input_ids else None
        tokens = (getattr(self._processor, f"{kind}_token", None) for kind in ("image", "video", "audio"))
        self._media = tuple(token for token in tokens if isinstance(token, str) and token)
        multimodal = getattr(runner.config, "multimodal_config", None)
        self._most_images = multimodal.get_limit_per_prompt("image") if multimodal is not None else None
        self._tokens = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """Responses as they finish. Bad requests are answered with unreadable_image, empty_prompt, image_tags,
        too_many_images, prompt_too_long or bad_request."""
        late = self._spec.late_decode and not sampling.stop  # to find a stop string, vLLM must see the text
        how = How(sampling, self._tokenizer if late else None)
        for response in self._runner.run(requests, self._prompt, how):
            self._tokens += sum(completion.n_tokens or 0 for completion in response.completions)
            yield response

    def stats(self) -> dict[str, int]:
        """Sequences ``running`` and ``waiting`` now, ``tokens`` of all finished answers so far."""
        unfinished = self._runner.unfinished_count()
        running = min(unfinished, self._runner.max_num_seqs)
        return {"running": running, "waiting": unfinished - running, "tokens": self._tokens}

    def close(self) -> None:
        self._runner.close()

    def _prompt(self, request: Request) -> Prompt | Response:
        if (refused := unservable(request, self._media)) is not None:
            return refused
        if self._most_images is not None and len(request.images) > self._most_images:
            reason = (
                f"{len(request.images)} images, and the engine was started for prompts of at most {self._most_images}"
            )
            return Response(request.id, error_type="too_many_images", error=reason)
        pictures = []
        for index, data in enumerate(request.images):
            try:
                pictures.append(pixels.fit(pixels.decode(data, None, None), self._spec.max_image_pixels))
            except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and others
                reason = f"image {index}: {type(error).__name__}: {error}"
                return Response(request.id, error_type="unreadable_image", error=reason)
        # A begun answer is rendered as an answer, cut off behind its text: some templates (LLaVA-1.5) put something
        # between the generation prompt and an answer.
        render = partial(
            self._processor.apply_chat_template,
            chat_template=self._spec.chat_template,
            add_generation_prompt=not request.prefix,
            continue_final_message=bool(request.prefix),
            tokenize=False,
        )
        messages = conversation(request)
        try:
            text = render(messages)
            why = unshown(render, messages, text)
        except Exception as error:  # a template may raise what it likes, for instance at a system message
            return Response(request.id, error_type="bad_request", error=f"chat template: {first_line(error)}")
        if why is not None:
            return Response(request.id, error_type="bad_request", error=why)
        if self._doubled:
            text = text.removeprefix(self._doubled)
        return {"prompt": text, **({"multi_modal_data": {"image": pictures}} if pictures else {})}


class Alone:
    """``vllm.LLM``, stepped here; one shard at a time."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm: Any = LLM(**options)
        self.config = self._llm.llm_engine.model_config
        self.max_num_seqs = int(options["max_num_seqs"])
        self._lock = threading.Lock()

    def run(
        self, requests: Sequence[Request], make: Callable[[Request], Prompt | Response], how: How
    ) -> Iterator[Response]:
        ready: list[tuple[Request, Prompt]] = []
        for request in requests:  # decoded before the lock is taken: the other thread may be generating
            prompt = make(request)
            if isinstance(prompt, Response):
                yield prompt
            else:
                ready.append((request, prompt))
        with self._lock:
            yield from self._run(ready, how)

    def _run(self, ready: Sequence[tuple[Request, Prompt]], how: How) -> Iterator[Response]:
        engine = self._llm.llm_engine
        # What earlier shards left in the caches would change the shape of this one's passes, and so its last bits.
        self._llm.reset_prefix_cache()
        engine.reset_encoder_cache()
        waiting: dict[str, Request] = {}
        try:
            for request, prompt in ready:
                try:
                    (request_id,) = self._llm.enqueue([prompt], [how.params(request)], use_tqdm=False)
                except refusals() as error:
                    # What was looked at before it was refused never reached the cache behind this one, which would be
                    # asked for it by the next prompt about the same image.
                    engine.renderer.clear_mm_cache()
                    yield refusal(request, error)
                else:
                    # assign_request_id appends a random suffix; outputs carry the part before it.
                    waiting[_external(request_id)] = request
            while waiting:
                for output in engine.step():
                    if output.finished:
                        yield how.response(waiting.pop(_external(output.request_id)), output)
        finally:
            if waiting:  # an exception, or the caller stopped reading: leave nothing behind for the next shard
                engine.abort_request(list(waiting))

    def unfinished_count(self) -> int:
        count: int = self._llm.llm_engine.output_processor.get_num_unfinished_requests()
        return count

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


class Overlapping:
    """``vllm.AsyncLLM`` on an event loop of its own; any number of shards at a time."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        self._numbers = itertools.count()
        # Enough to keep the engine full while one shard ends and the next begins; more would only hold decoded images.
        self.max_num_seqs = int(options["max_num_seqs"])
        self._ahead = 2 * self.max_num_seqs

        async def open_engine() -> Any:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))

        self._llm: Any = asyncio.run_coroutine_threadsafe(open_engine(), self._loop).result()
        self.config = self._llm.model_config

    def run(
        self, requests: Sequence[Request], make: Callable[[Request], Prompt | Response], how: How
    ) -> Iterator[Response]:
        answered: queue.SimpleQueue[Future[Response]] = queue.SimpleQueue()
        pending: set[Future[Response]] = set()

        def take() -> Response:
            future = answered.get()
            pending.discard(future)
            return future.result()

        try:
            for request in requests:
                while len(pending) >= max(1, self._ahead // how.sampling.n):
                    yield take()
                prompt = make(request)
                if isinstance(prompt, Response):
                    yield prompt
                    continue
                future = asyncio.run_coroutine_threadsafe(self._answer(request, prompt, how), self._loop)
                pending.add(future)
                future.add_done_callback(answered.put)
            while pending:
                yield take()
        finally:
            for future in pending:  # an exception, or the caller stopped reading
                future.cancel()

    async def _answer(self, request: Request, prompt: Prompt, how: How) -> Response:
        for _ in range(_TRIES):
            number = str(next(self._numbers))
            try:
                # FINAL_ONLY: there is one output, with all n answers.
                (output,) = [last async for last in self._llm.generate(prompt, how.params(request), number)]
            except refusals() as error:
                return refusal(request, error)
            if (response := how.response(request, output)).error_type is None:
                break
        return response

    def unfinished_count(self) -> int:
        count: int = self._llm.get_num_unfinished_requests()
        return count

    def close(self) -> None:
        self._llm.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)


def _external(request_id: str) -> str:
    return request_id.split("-", 1)[0]
