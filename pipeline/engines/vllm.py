"""vLLM inside the worker process. The only module that imports vLLM, and only when an engine is opened.

Byte-for-byte repeatable on one machine: a shard is generated with nothing else in the engine, so the batches that vLLM
forms, and with them the last bits of every log-prob, do not depend on what ran before or beside it.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import models
from pipeline.engines import Completion, Request, Response, Sampling
from pipeline.errors import EngineError

#: Set before vLLM is imported, where the user has not.
_ENV = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The engine core in this process: one process fewer to lose, and seeds are then reproducible (vLLM's own advice).
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
#: Tokens of one scheduler step where chunked prefill is off; vLLM then wants at least a whole prompt in it.
_CPU_BATCHED_TOKENS = 32_768


@dataclass(frozen=True)
class OpenVllm:
    """Opens a ``VllmEngine``. ``model`` is a folder or hub id, ``dtype="auto"`` is float32 on CPU."""

    model: str
    revision: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1

    def __call__(self) -> VllmEngine:
        """
        Raises:
            EngineError: vLLM is not installed, or the model is missing or cannot be loaded.
        """
        models.require_folder(self.model, "config.json")
        for key, value in _ENV.items():
            os.environ.setdefault(key, value)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise EngineError(
                f"vLLM cannot be imported: {error}", "install the extra: pip install 'vlm-preference[cpu]' or [gpu]"
            ) from error
        on_cpu = current_platform.is_cpu()
        dtype: Any = "float32" if on_cpu and self.dtype == "auto" else self.dtype
        try:
            llm = LLM(
                model=self.model,
                revision=self.revision,
                dtype=dtype,
                max_model_len=self.max_model_len,
                max_num_seqs=self.max_num_seqs,
                gpu_memory_utilization=self.gpu_memory_utilization,
                tensor_parallel_size=self.tensor_parallel_size,
                trust_remote_code=False,
                disable_log_stats=True,
                # The defaults of the model's author would silently change top_p, top_k or the repetition penalty.
                generation_config="vllm",
                **(_cpu_options() if on_cpu else {}),
            )
        except Exception as error:  # vLLM raises OSError, ValueError, RuntimeError, pydantic's and huggingface_hub's
            raise EngineError(f"vLLM cannot open {self.model!r}: {_first_line(error)}", _remedy(self, error)) from error
        return VllmEngine(llm)


class VllmEngine:
    """An open engine. ``generate`` may be called from several threads; generation itself is one call at a time."""

    def __init__(self, llm: Any) -> None:
        from transformers import AutoProcessor
        from vllm.exceptions import VLLMClientError

        self._llm = llm
        self._refusals = (VLLMClientError, ValueError, TypeError)
        self._config = llm.llm_engine.model_config
        # A text-only model has no processor; AutoProcessor then returns the tokenizer, which has the template as well.
        self._processor = AutoProcessor.from_pretrained(self._config.model, revision=self._config.revision)
        self._lock = threading.Lock()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """Responses as they finish. Bad requests are answered at once: unreadable_image, empty_prompt,
        prompt_too_long, bad_request."""
        ready: list[tuple[Request, dict[str, Any]]] = []
        for request in requests:  # decoded before the lock is taken: the other thread may be generating
            prompt = self._prompt(request)
            if isinstance(prompt, Response):
                yield prompt
            else:
                ready.append((request, prompt))
        with self._lock:
            yield from self._run(ready, sampling)

    def _run(self, ready: Sequence[tuple[Request, dict[str, Any]]], sampling: Sampling) -> Iterator[Response]:
        engine = self._llm.llm_engine
        # What earlier shards left in the cache would change the shape of this one's prefills, and so its last bits.
        self._llm.reset_prefix_cache()
        waiting: dict[str, Request] = {}
        try:
            for request, prompt in ready:
                try:
                    (one,) = self._llm.enqueue([prompt], [_params(request, sampling)], use_tqdm=False)
                except self._refusals as error:
                    yield self._refusal(request, error)
                else:
                    # assign_request_id appends a random suffix; outputs carry the part before it.
                    waiting[_external(one)] = request
            while waiting:
                for output in engine.step():
                    if output.finished:
                        yield _response(waiting.pop(_external(output.request_id)), output)
        finally:
            if waiting:  # an exception, or the caller stopped reading: leave nothing behind for the next shard
                engine.abort_request(list(waiting))

    def _prompt(self, request: Request) -> dict[str, Any] | Response:
        if not any(role == "user" and text.strip() for role, text in request.messages):
            return Response(request.id, error_type="empty_prompt", error="no message of the user has any text")
        images = []
        for index, data in enumerate(request.images):
            try:
                images.append(decode(data))
            except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and others
                reason = f"image {index}: {type(error).__name__}: {error}"
                return Response(request.id, error_type="unreadable_image", error=reason)
        text = self._processor.apply_chat_template(conversation(request), add_generation_prompt=True, tokenize=False)
        prompt: dict[str, Any] = {"prompt": text}
        if images:
            prompt["multi_modal_data"] = {"image": images}
        return prompt

    def _refusal(self, request: Request, error: Exception) -> Response:
        text = _first_line(error)
        too_long = any(word in text.lower() for word in ("longer than", "maximum model length", "context length"))
        return Response(request.id, error_type="prompt_too_long" if too_long else "bad_request", error=text)


def conversation(request: Request) -> list[dict[str, Any]]:
    """The messages with structured content; images stand before the first user text, where TRL puts them."""
    messages: list[dict[str, Any]] = []
    images = [{"type": "image"} for _ in request.images]
    for role, text in request.messages:
        parts = [*images, {"type": "text", "text": text}] if role == "user" else [{"type": "text", "text": text}]
        if role == "user":
            images = []
        messages.append({"role": role, "content": parts})
    return messages


def decode(data: bytes) -> Any:
    """The image as RGB; raises whatever Pillow does on a truncated or unknown file."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def _params(request: Request, sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop) or None,
        seed=request.seed,
        logprobs=0,  # the sampled token's own; without it there is no cumulative_logprob
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _response(request: Request, output: Any) -> Response:
    done = sorted(output.outputs, key=lambda one: one.index)
    return Response(
        request.id,
        tuple(
            Completion(
                one.text.strip(), len(one.token_ids), one.finish_reason or "stop", float(one.cumulative_logprob or 0.0)
            )
            for one in done
        ),
    )


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
