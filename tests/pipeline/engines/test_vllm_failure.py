"""Every failed start names its cause in vLLM's own words, and what helps against it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tiny_models import gemma3, hasten_vllm, llava

from pipeline.engines.vllm_failure import reason, remedy

ELSEWHERE = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
#: As a core prints it, twice: logged, and as the end of a process.
PRINTED = """
(EngineCore pid=29937) ERROR 11-27 17:12:15 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=29937) ERROR 11-27 17:12:15 [core.py:1510]     raise ValueError(
(EngineCore pid=29937) ERROR 11-27 17:12:15 [core.py:1510] ValueError: No room for the cache.
(EngineCore pid=29937) ERROR 11-27 17:12:15 [core.py:1510] RuntimeError: See stack trace for the root cause.
Process EngineCore:
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]
"""


@pytest.mark.parametrize(
    ("error", "printed", "why"),
    [
        (ValueError("too long\n\nand more"), "KeyError: other", "too long"),
        (RuntimeError(ELSEWHERE), PRINTED, "No room for the cache."),
        (
            RuntimeError(ELSEWHERE),
            "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB",
            "CUDA out of memory. Tried",
        ),
        (RuntimeError(ELSEWHERE), "nothing of use", "its process ended without a word"),
        (KeyError(), "", "KeyError"),
        (
            RuntimeError(ELSEWHERE),
            "    assert a == b\n           ^^^^^^\nAssertionError\n",
            "AssertionError: assert a == b",
        ),
    ],
)
def test_the_reason_is_the_last_error_that_says_something(error: Exception, printed: str, why: str) -> None:
    assert reason(error, printed).startswith(why)


@pytest.mark.parametrize(
    ("why", "helps"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "lower max_num_batched_tokens"),
        ("its process ended without a word, as one does that ...", "lower max_num_batched_tokens"),
        (
            "Free memory on device cuda:0 (3.2/79.6 GiB) on startup is less than desired GPU memory",
            "end what else holds",
        ),
        ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "lower max_model_len"),
        ("Bfloat16 is only supported on GPUs with compute capability of at least 8.0", "set dtype"),
        ("The server socket has failed to listen: EADDRINUSE, address already in use", "has that port"),
        ("NCCL error: unhandled system error", "NCCL_DEBUG=INFO"),
        ("CUDA error: no kernel image is available for execution on the device", "nvidia-smi"),
        ("This modeling file requires flash_attn: No module named 'flash_attn'", "install what it names"),
        ("something new", "a complete model"),
    ],
)
def test_what_only_a_gpu_or_a_network_can_say_has_its_remedy(why: str, helps: str) -> None:
    assert helps in remedy("/", why)


def test_the_folder_s_own_name_is_no_cause(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer-dtype"
    folder.mkdir()
    assert "a complete model" in remedy(str(folder), f"{folder} is odd")


@dataclass(frozen=True)
class Failure:
    """``spoil`` a copy of a model, or open it with ``options``; the message has all of ``says``."""

    name: str
    says: tuple[str, ...]
    spoil: Callable[[Path], Any] = lambda folder: None
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "llava"
    overlap: tuple[bool, ...] = (False,)


def edit(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["text_config"] |= changes.pop("text_config", {})
        path.write_text(json.dumps(config | changes))

    return spoil


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def remove(pattern: str) -> Callable[[Path], None]:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)] and None


BOTH = (False, True)
FAILURES = [
    Failure("no weights", ("Cannot find any model weights", "put its .safetensors files"), remove("*.safetensors")),
    Failure(
        "a file that ended early",
        ("Error while deserializing header: incomplete metadata", "download it again"),
        lambda folder: weights(folder).write_bytes(weights(folder).read_bytes()[:-500]),
        overlap=BOTH,  # vLLM's core fails, which is a process of its own
    ),
    Failure(
        "a pointer of Git LFS",
        ("Error while deserializing header", "Git LFS pointer"),
        lambda folder: weights(folder).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n"),
    ),
    Failure(
        "weights of another model",
        ("AssertionError: ", "shape", "not of the same model"),
        edit(text_config={"vocab_size": 300}),
    ),
    Failure(
        "too long",
        ("User-specified max_model_len (99999) is greater", "lower max_model_len"),
        options={"max_model_len": 99_999},
        overlap=BOTH,
    ),
    Failure(
        "a cache too small",
        ("KV cache is needed", "lower max_model_len"),
        options={"engine_args": {"kv_cache_memory_bytes": 200_000}},
        overlap=BOTH,
    ),
    Failure("a dtype that it must not have", ("does not support float16", "set dtype"), options={"dtype": "float16"},
            model="gemma3", overlap=BOTH),
    Failure("an unknown dtype", ("dtype: Input should be 'auto'", "set dtype"), options={"dtype": "int7"}),
    Failure(
        "an unknown architecture",
        ("['FooForCausalLM'] are not supported", "this vLLM has no such model"),
        edit(architectures=["FooForCausalLM"]),
        overlap=BOTH,
    ),
    Failure("an unknown type", ("model type `foo`", "this vLLM has no such model"), edit(model_type="foo")),
    Failure(
        "code of its own",
        ("contains custom code", "set trust_remote_code: true"),
        edit(model_type="foo", auto_map={"AutoConfig": "configuration_foo.FooConfig"}),
        overlap=BOTH,
    ),
    Failure(
        "another quantization than its weights have",
        ("Cannot find the config file for awq", "correct quantization in engine_args"),
        options={"engine_args": {"quantization": "awq"}},
    ),
    Failure(
        "a quantization that this vLLM does not know",
        ("Unknown quantization method: bitsandbytes", "correct quantization in engine_args"),
        edit(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ),
    Failure("no tokenizer", ("the backend tokenizer", "put the tokenizer's files"), remove("tokenizer*")),
    Failure("no processor", ("Can't load image processor", "put preprocessor_config.json"), remove("*processor*")),
    Failure(
        "a damaged config",
        ("is not a valid JSON file", "correct that file"),
        lambda folder: (folder / "config.json").write_text("{"),
    ),
    Failure(
        "heads that do not divide",
        ("attention heads (2) must be divisible by tensor parallel size (3)", "set tensor_parallel_size"),
        options={"tensor_parallel_size": 3},
    ),
    Failure(
        "steps shorter than a prompt",
        ("max_num_batched_tokens (300) is smaller than max_model_len", "raise max_num_batched_tokens"),
        options={"max_num_batched_tokens": 300},
    ),
    Failure(
        "more memory than there is",
        ("is less than requested memory for kv", "engine_args.kv_cache_memory_bytes"),
        options={"engine_args": {"kv_cache_memory_bytes": 2**50}},
    ),
    Failure("an argument of another kind", ("block_size: Input should be a valid integer",),
            options={"engine_args": {"block_size": "many"}}),
]  # fmt: skip
CASES = [(failure, overlap) for failure in FAILURES for overlap in failure.overlap]


def start(folder: Path, options: dict[str, Any]) -> str:
    """What opening it raises."""
    from pipeline.base.errors import PipelineError
    from pipeline.engines.vllm import OpenVllm

    try:
        OpenVllm(str(folder), **options)().close()
    except PipelineError as error:
        return str(error)
    return "it opened"


def fork_cores() -> None:
    """The core of ``AsyncLLM`` is a process on CPU, too, but need not import everything anew."""
    from vllm.v1.engine import utils

    hasten_vllm()
    utils.get_mp_context = lambda: get_context("fork")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=fork_cores) as pool:
        yield pool


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.base.export import save_for_vllm

    folder = tmp_path_factory.mktemp("models")
    for build in (llava, gemma3):
        save_for_vllm(*build(), folder / build.__name__)
    return folder


@pytest.mark.parametrize(
    ("failure", "overlap"), CASES, ids=[f"{f.name}{', its core elsewhere' * overlap}" for f, overlap in CASES]
)
def test_a_failed_start_says_why_and_what_helps(
    models: Path, elsewhere: ProcessPoolExecutor, failure: Failure, overlap: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "model"  # vLLM remembers what it has read from where
    shutil.copytree(models / failure.model, folder)
    failure.spoil(folder)
    message = elsewhere.submit(start, folder, {**failure.options, "overlap": overlap}).result(timeout=300)
    assert message.startswith(f"vLLM cannot open '{folder}': ")
    assert all(text in message for text in failure.says), message
