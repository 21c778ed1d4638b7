"""Why vLLM did not start, in its own words, and what helps."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

#: Characters of a reason.
_LONGEST = 400
#: What vLLM and Ray say where the cause was printed by another process.
_ELSEWHERE = re.compile(
    r"see (the )?(root cause|stack trace)|core initialization failed|background process|died unexpectedly|"
    r"EngineDeadError",
    re.I,
)
#: What stands before a line that vLLM's processes log.
_LOGGED = re.compile(
    r"^\((?:EngineCore|Worker|MainProcess)[^)]*\)\s*|^(?:ERROR|WARNING|INFO) \d\d-\d\d [\d:]+ \[[^\]]*\]\s?"
)
#: The last line of a traceback.
_RAISED = re.compile(
    r"^(?:[a-zA-Z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|NotFound|Failure)(?:: (?P<text>.*)|:?$)"
)
#: What is said where a model cannot be had from the hub.
_HUB = r"offline|huggingface|hf\.co|couldn't connect|Repository|local cache|outgoing traffic"
_KEY = "the engine's options"

#: What a reason says, and what helps; the first that fits.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"trust_remote_code|contains custom code", f"set trust_remote_code: true in {_KEY}, if you trust that code"),
    (r"greater than the derived max_model_len", f"lower max_model_len in {_KEY}: the model has no more positions"),
    (
        r"model's max seq len|KV cache is needed|KV cache memory|No available memory for the cache blocks",
        f"lower max_model_len in {_KEY}, or raise gpu_memory_utilization (on CPU engine_args.kv_cache_memory_bytes)",
    ),
    (
        r"requested memory for kv|Free memory on device|less than desired GPU memory|"
        r"Error in memory profiling|free memory",
        f"end what else holds that memory, lower gpu_memory_utilization or gpus in {_KEY} (on CPU "
        "engine_args.kv_cache_memory_bytes)",
    ),
    (
        r"out of memory|can't allocate memory|Cannot allocate memory|MemoryError|bad_alloc",
        f"lower max_num_batched_tokens, max_num_seqs or gpu_memory_utilization in {_KEY}, split the model with "
        "tensor_parallel_size, or take a machine with more memory (on CPU: lower kv_cache_memory_bytes)",
    ),
    (r"address already in use|EADDRINUSE", "another process has that port: end it, or unset VLLM_PORT and MASTER_PORT"),
    (
        r"quantiz|for awq|for gptq|quant_method",
        f"correct quantization in engine_args of {_KEY}, or quantization_config in the model's config.json: they must "
        "name what its weights are, and a method that this vLLM knows",
    ),
    (
        r"does not support (b?float|half)|Bfloat16 is only supported|dtype",
        f"set dtype in {_KEY} to one that model and card know",
    ),
    (
        r"Cannot find any model weights",
        f"put its .safetensors files into the folder, or set load_format: auto in {_KEY} for weights of another kind",
    ),
    (
        r"deserializing header|SafetensorError|InvalidHeader|incomplete metadata|invalid load key|PytorchStreamReader",
        "a weight file is damaged or a Git LFS pointer: download it again",
    ),
    (
        r"no module or parameter named|not initialized from checkpoint|size mismatch|shape|Missing key|"
        r"assert (?:param|loaded)|\.size\(\)",
        "config.json and the weights are not of the same model: take both from one place",
    ),
    (
        r"are not supported for now|does not recognize this architecture|Unrecognized model|Cannot find model module|"
        r"has no vLLM impl",
        "this vLLM has no such model: correct architectures and model_type in config.json, or serve it with another "
        "release and set engine.kind: openai",
    ),
    (
        r"tokenizer",
        "put the tokenizer's files (tokenizer.json or tokenizer.model, tokenizer_config.json) into the folder",
    ),
    (
        r"image processor|preprocessor_config|processor_config|AutoProcessor|feature extractor",
        "put preprocessor_config.json (and processor_config.json) of the model into the folder",
    ),
    (r"not a valid JSON|JSONDecode", "correct that file, or download it again"),
    (r"is required to run|No module named|ImportError|pip install", "install what it names"),
    (
        r"World size|tensor.parallel|divisible by|number of attention heads|available GPUs|local_rank",
        f"set tensor_parallel_size in {_KEY} to a divisor of the model's heads, and to no more than a machine's GPUs",
    ),
    (r"max_num_batched_tokens", f"raise max_num_batched_tokens in {_KEY}, or lower max_model_len"),
    (
        r"NCCL|ncclUnhandled",
        "set NCCL_DEBUG=INFO and PIPELINE_WORKER_LOGS=1 to see why the GPUs cannot reach each other",
    ),
    (r"driver|CUDA|no kernel image|libcuda", "check with nvidia-smi that driver and card suit this torch and vLLM"),
)
_OTHERWISE = (
    "check that the folder holds a complete model that this vLLM supports; PIPELINE_WORKER_LOGS=1 shows all it says"
)


def reason(error: BaseException, printed: str = "") -> str:
    """What went wrong, in vLLM's own words: the error itself, or, where that only says that another process failed, the
    last one among what was ``printed``.

    >>> reason(RuntimeError("Engine core initialization failed. See root cause above."), "ValueError: no room")
    'no room'
    """
    text = _said(error)
    if not _ELSEWHERE.search(text):
        return _line(text)
    telling = [said for said in _errors(printed) if not _ELSEWHERE.search(said)]
    if telling:
        return _line(telling[-1])
    return "its process ended without a word, as one does that the system kills for its memory"


def remedy(model: str, why: str) -> str:
    """What helps against ``why``, a reason that ``model`` could not be opened."""
    if not Path(model).is_dir() and re.search(
        r"offline|huggingface|hf\.co|couldn't connect|Repository|local cache|outgoing traffic", why, re.I
    ):
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        return "HF_HUB_OFFLINE is set: unset it, or give a folder" if offline else "check the model's hub id"
    if "without a word" in why:
        return next(text for words, text in _REMEDIES if "out of memory" in words)
    why = why.replace(model, "")  # a folder may be called as it likes
    return next((text for words, text in _REMEDIES if re.search(words, why, re.I)), _OTHERWISE)


def _errors(printed: str) -> Iterator[str]:
    """The errors of all tracebacks; of one that says nothing, the code that raised it."""
    code = ""
    for line in map(_bare, printed.splitlines()):
        if (match := _RAISED.match(line)) is not None:
            yield match["text"] or f"{line.rstrip(':')}: {code}"
        elif line.strip(" ^~"):
            code = line.strip()


def _said(error: BaseException) -> str:
    """Pydantic's errors begin with how many they are, and others say nothing."""
    listed = getattr(error, "errors", None)
    if callable(listed) and type(error).__name__ == "ValidationError":
        first = listed()[0]
        place = ".".join(str(part) for part in first["loc"][:1])
        text = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{place}: {text}" if place else text
    if text := str(error).strip():
        return text
    code = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {code[-1].line}" if code else type(error).__name__


def _bare(line: str) -> str:
    while (shorter := _LOGGED.sub("", line, count=1)) != line:
        line = shorter
    return line.rstrip()


def _line(text: str) -> str:
    """The first paragraph, in one line."""
    whole = " ".join(text.strip().split("\n\n")[0].split())
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 4]} ..."
