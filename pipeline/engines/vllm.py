"""vLLM inside the worker process. vLLM is imported here and in ``vllm_rewards`` alone, and only when opened.

An engine runs in one of two ways. *Alone*: a shard is generated with nothing else in the engine, so the batches that
vLLM forms, and with them the last bits of every log-prob, do not depend on what ran before or beside it; one machine
repeats itself byte for byte. *Overlapping*: ``AsyncLLM`` serves two shards at a time, the next one filling the batch
while the last answers of this one are written; texts are the same but for ties in the last bit.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.base import model_names as models
from pipeline.base.errors import EngineError
from pipeline.base.images import pixels
from pipeline.engines.protocol import Completion, Request, Response, Sampling, likeliest, trim, unservable

#: Set before vLLM is imported, where the user has not.
_ENV = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The engine core in this process: one process fewer to lose, and seeds are then reproducible (vLLM's own advice).
    # AsyncLLM has its core in a process of its own whatever this says.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
#: Tokens of one scheduler step where chunked prefill is off; vLLM then wants at least a whole prompt in it.
_CPU_BATCHED_TOKENS = 32_768
#: Prompts have nothing else in them. A model that also sees videos would be started with room for the longest, which
#: for Qwen2.5-VL takes more memory and time than all images together.
IMAGES_ONLY = {"video": 0, "audio": 0}

Prompt = dict[str, Any]


@dataclass(frozen=True)
class OpenVllm:
    """Opens a ``VllmEngine``. ``model`` is a folder or hub id, ``dtype="auto"`` is float32 on CPU, ``chat_template``
    the text of a Jinja template. For the other options see ``pipeline.sampling.config``."""

    model: str
    revision: str | None = None
    chat_template: str | None = None
    max_image_pixels: int | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    load_format: str = "safetensors"
    trust_remote_code: bool = False
    overlap: bool | None = None
    late_decode: bool = True

    def __call__(self) -> VllmEngine:
        """
        Raises:
            EngineError: vLLM is not installed, or the model is missing or cannot be loaded.
        """
        models.require_folder(self.model, "config.json")
        on_cpu = runs_on_cpu()
        options = {
            "model": self.model,
            "revision": self.revision,
            "dtype": "float32" if on_cpu and self.dtype == "auto" else self.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel_size,
            "load_format": self.load_format,
            "trust_remote_code": self.trust_remote_code,
            "disable_log_stats": True,
            "limit_mm_per_prompt": IMAGES_ONLY,
            # The defaults of the model's author would silently change top_p, top_k or the repetition penalty.
            "generation_config": "vllm",
            **(_cpu_options() if on_cpu else {}),
        }
        overlap = self.overlap if self.overlap is not None else not on_cpu
        try:
            runner = Overlapping(options) if overlap else Alone(options)
        except Exception as error:  # vLLM raises OSError, ValueError, RuntimeError, pydantic's and huggingface_hub's
            raise EngineError(f"vLLM cannot open {self.model!r}: {_first_line(error)}", _remedy(self, error)) from error
        return VllmEngine(runner, self)


def runs_on_cpu() -> bool:
    """Import vLLM, with its environment set first; whether it will run on the CPU.

    Raises:
        EngineError: vLLM is not installed.
    """
    for key, value in _ENV.items():
        os.environ.setdefault(key, value)
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM cannot be imported: {error}", "install the extra: pip install 'vlm-preference[cpu]' or [gpu]"
        ) from error
    return bool(current_platform.is_cpu())


@dataclass(frozen=True)
class How:
    """How requests are put to vLLM, and its outputs read.

    With ``tokenizer``, vLLM returns token ids alone and each answer is decoded once, when it is finished: decoding
    every token as it comes, and its log-prob's token once more, takes a quarter of a small model's time.
    """

    sampling: Sampling
    tokenizer: Any | None

    def params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.sampling.n,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            stop=list(self.sampling.stop) or None,
            seed=request.seed,
            # With 0 it is the sampled token's own; without that there is no cumulative_logprob.
            logprobs=self.sampling.top_logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # What follows a prefix begins with a space or does not; many tokenizers tell only with the tokens before.
            detokenize=self.tokenizer is None or bool(request.prefix),
        )

    def response(self, request: Request, output: Any) -> Response:
        done = sorted(output.outputs, key=lambda completion: completion.index)
        return Response(request.id, tuple(self._completion(request, output) for output in done))

    def _completion(self, request: Request, output: Any) -> Completion:
        reason, text = output.finish_reason or "stop", output.text
        if self.tokenizer is not None and not request.prefix:
            # As vLLM does: the token that ended the answer is not part of its text.
            ids = list(output.token_ids)[:-1] if reason == "stop" else list(output.token_ids)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
        logprob = float(output.cumulative_logprob or 0.0)
        return Completion(trim(text, request), len(output.token_ids), reason, logprob, self._first(output))

    def _first(self, output: Any) -> tuple[tuple[str, float], ...] | None:
        """vLLM adds the sampled token to the likeliest ones, so there may be one too many."""
        if not self.sampling.top_logprobs or not output.logprobs:
            return None
        tokens = [(self._token(token, entry), float(entry.logprob)) for token, entry in output.logprobs[0].items()]
        return likeliest(tokens, self.sampling.top_logprobs)

    def _token(self, token: int, entry: Any) -> str:
        text: str = self.tokenizer.decode([token]) if self.tokenizer is not None else entry.decoded_token or ""
        return text


class _Runner(Protocol):
    """``run`` answers every prompt that ``make`` could make; may be called from several threads."""

    config: Any

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
        self._tokens = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """Responses as they finish. Bad requests are answered with unreadable_image, empty_prompt, image_tags,
        prompt_too_long or bad_request."""
        late = self._spec.late_decode and not sampling.stop  # to find a stop string, vLLM must see the text
        how = How(sampling, self._tokenizer if late else None)
        for response in self._runner.run(requests, self._prompt, how):
            self._tokens += sum(completion.n_tokens or 0 for completion in response.completions)
            yield response

    def stats(self) -> dict[str, int]:
        """Sequences ``running`` and ``waiting`` now, ``tokens`` of all finished answers so far."""
        unfinished = self._runner.unfinished_count()
        running = min(unfinished, self._spec.max_num_seqs)
        return {"running": running, "waiting": unfinished - running, "tokens": self._tokens}

    def close(self) -> None:
        self._runner.close()

    def _prompt(self, request: Request) -> Prompt | Response:
        if (refused := unservable(request, self._media)) is not None:
            return refused
        pictures = []
        for index, data in enumerate(request.images):
            try:
                pictures.append(pixels.fit(pixels.decode(data, None, None), self._spec.max_image_pixels))
            except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and others
                reason = f"image {index}: {type(error).__name__}: {error}"
                return Response(request.id, error_type="unreadable_image", error=reason)
        try:
            text = self._processor.apply_chat_template(
                conversation(request),
                chat_template=self._spec.chat_template,
                # A begun answer is rendered as an answer, cut off behind its text: some templates (LLaVA-1.5) put
                # something between the generation prompt and an answer.
                add_generation_prompt=not request.prefix,
                continue_final_message=bool(request.prefix),
                tokenize=False,
            )
        except Exception as error:  # a template may raise what it likes, for instance at a system message
            return Response(request.id, error_type="bad_request", error=f"chat template: {_first_line(error)}")
        if self._doubled:
            text = text.removeprefix(self._doubled)
        return {"prompt": text, **({"multi_modal_data": {"image": pictures}} if pictures else {})}


class Alone:
    """``vllm.LLM``, stepped here; one shard at a time."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm: Any = LLM(**options)
        self.config = self._llm.llm_engine.model_config
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
        # What earlier shards left in the cache would change the shape of this one's prefills, and so its last bits.
        self._llm.reset_prefix_cache()
        waiting: dict[str, Request] = {}
        try:
            for request, prompt in ready:
                try:
                    (request_id,) = self._llm.enqueue([prompt], [how.params(request)], use_tqdm=False)
                except _refusals() as error:
                    yield _refusal(request, error)
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
        self._ahead = 2 * int(options["max_num_seqs"])

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
        number = str(next(self._numbers))
        try:
            # FINAL_ONLY: there is one output, with all n answers.
            (output,) = [last async for last in self._llm.generate(prompt, how.params(request), number)]
        except _refusals() as error:
            return _refusal(request, error)
        return how.response(request, output)

    def unfinished_count(self) -> int:
        count: int = self._llm.get_num_unfinished_requests()
        return count

    def close(self) -> None:
        self._llm.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)


def conversation(request: Request) -> list[dict[str, Any]]:
    """The messages with structured content, a begun answer last; images stand before the first user text, where TRL
    puts them."""
    messages: list[dict[str, Any]] = []
    images = [{"type": "image"} for _ in request.images]
    for role, text in request.messages:
        parts = [*images, {"type": "text", "text": text}] if role == "user" else [{"type": "text", "text": text}]
        if role == "user":
            images = []
        messages.append({"role": role, "content": parts})
    if request.prefix:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": request.prefix}]})
    return messages


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises at a request that it cannot serve."""
    from vllm.exceptions import VLLMClientError

    return (VLLMClientError, ValueError, TypeError)


def _refusal(request: Request, error: Exception) -> Response:
    text = _first_line(error)
    too_long = any(word in text.lower() for word in ("longer than", "maximum model length", "context length"))
    return Response(request.id, error_type="prompt_too_long" if too_long else "bad_request", error=text)


def _external(request_id: str) -> str:
    return request_id.split("-", 1)[0]


def _cpu_options() -> dict[str, Any]:
    return {
        "enforce_eager": True,
        # Per-request seeds fail with chunked prefill on CPU ("CPU Generator does not use offset").
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": _CPU_BATCHED_TOKENS,
    }


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _remedy(spec: OpenVllm, error: Exception) -> str:
    if not Path(spec.model).is_dir():
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        return "HF_HUB_OFFLINE is set: unset it, or give a folder" if offline else "check the model's hub id"
    if "memory" in str(error).lower():
        return "lower sample.engine.max_model_len or gpu_memory_utilization"
    return "check that the folder holds a complete model that this vLLM supports"
