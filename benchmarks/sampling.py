"""How much of vLLM's speed is left when the pipeline drives it, and what the usual ways of sampling leave.

    python benchmarks/sampling.py --json OUT                                    # the scenes VLM
    python benchmarks/sampling.py --model FOLDER --load-format dummy --json OUT # any architecture, without weights

The same prompts and images, n answers each, in tokens per second of sampling; loading the model is not counted. Every
way runs in a process of its own, one after the other:

    bare_vllm          one call of vllm.LLM.generate, n=k
    pipeline           the sample stage: Ray actor, shards on disk, seeds, log-probs
    pipeline_overlap   the same with two shards in the engine at a time (AsyncLLM)
    ray_data_llm       Ray Data's LLM processor, whose rows give one answer: every prompt k times with n=1. Where it
                       cannot be imported beside this vLLM, the same expansion in bare vLLM (see "ray_data_llm_is")
    transformers_loop  one answer after the other with generate(), as the published PDS-DPO code does
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("bare_vllm", "pipeline", "pipeline_overlap", "ray_data_llm", "transformers_loop")
MODEL = str(Path(__file__).parents[1] / "pipeline" / "scenes" / "models" / "vlm")


def prompts(options: argparse.Namespace) -> list[dict[str, Any]]:
    from pipeline.scenes.prompts import build

    rows = build(scenes=options.prompts, questions_per_scene=0, prompts=None, seed=77)
    return sorted(rows, key=lambda row: row["source"])[: options.prompts]


def requests(options: argparse.Namespace) -> list[Any]:
    from pipeline.engines import Request
    from pipeline.seeds import derive

    return [
        Request(
            str(i),
            tuple(image["bytes"] for image in row["images"]),
            tuple((message["role"], message["content"]) for message in row["prompt"]),
            derive(0, str(i), "bench"),
        )
        for i, row in enumerate(prompts(options))
    ]


def opener(options: argparse.Namespace) -> Any:
    from pipeline.engines.vllm import OpenVllm

    return OpenVllm(
        options.model, load_format=options.load_format, max_num_seqs=options.max_num_seqs, overlap=False,
        dtype=options.dtype, max_model_len=options.max_model_len,
    )  # fmt: skip


def bare_vllm(options: argparse.Namespace, n: int | None = None) -> tuple[int, float]:
    """``LLM.generate`` on all prompts at once. The engine is opened as the pipeline opens it, for equal options."""
    from vllm import SamplingParams

    engine = opener(options)()
    llm = engine._runner._llm
    copies = options.n if n == 1 else 1
    asked = [request for request in requests(options) for _ in range(copies)]
    made = [engine._prompt(request) for request in asked]
    params = [
        SamplingParams(
            n=n or options.n, temperature=1.0, max_tokens=options.max_tokens, seed=request.seed + k % copies, logprobs=0
        )
        for k, request in enumerate(asked)
    ]
    llm.generate(made[:2], params[:2], use_tqdm=False)
    llm.reset_prefix_cache()
    started = time.perf_counter()
    outputs = llm.generate(made, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    return sum(len(one.token_ids) for output in outputs for one in output.outputs), seconds


def pipeline(options: argparse.Namespace, overlap: bool = False) -> tuple[int, float]:
    import pyarrow as pa

    from pipeline.config.sample import Sample
    from pipeline.executor import Executor
    from pipeline.stages.sample import SampleStage
    from pipeline.store import Run, make_record
    from pipeline.tables import OK, PROMPTS

    rows = [{"id": str(i), **row, **OK} for i, row in enumerate(prompts(options))]
    spec = {
        "model": options.model,
        "n": options.n,
        "max_tokens": options.max_tokens,
        "engine": {"load_format": options.load_format, "max_num_seqs": options.max_num_seqs, "overlap": overlap,
                   "dtype": options.dtype, "max_model_len": options.max_model_len},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        # Two prompts first: their stage starts and warms the engine, which the measured stage then finds open.
        slices = {
            "warm": [rows[:2]],
            "source": [rows[i : i + options.shard] for i in range(0, len(rows), options.shard)],
        }
        for name, shards in slices.items():
            for shard, part in enumerate(shards):
                run.write(name, shard, pa.Table.from_pylist(part, schema=PROMPTS))
            run.save(make_record(name, 1, {}, {}))
        with Executor(run) as executor:
            executor.run(SampleStage(Sample.model_validate(spec), 0, name="warmed", reads="warm"))
            result = executor.run(SampleStage(Sample.model_validate(spec), 0))
    return result.extras["tokens"], result.seconds


def pipeline_overlap(options: argparse.Namespace) -> tuple[int, float]:
    return pipeline(options, overlap=True)


def ray_data_llm(options: argparse.Namespace) -> tuple[int, float]:
    return bare_vllm(options, n=1)


def transformers_loop(options: argparse.Namespace) -> tuple[int, float]:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from pipeline import images
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
    tokens, started = 0, time.perf_counter()
    for request in requests(options)[: options.loop_prompts]:
        text = processor.apply_chat_template(conversation(request), add_generation_prompt=True, tokenize=False)
        pictures = [images.decode(data) for data in request.images]
        for _ in range(options.n):
            inputs = processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False).to(device)
            with torch.no_grad():
                out = model.generate(
                    **inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=options.max_tokens
                )
            tokens += out.shape[1] - inputs["input_ids"].shape[1]
    return tokens, time.perf_counter() - started


def ray_data_llm_is() -> str:
    """Whether Ray's processor can be had here; if not, what stands for it."""
    done = subprocess.run(
        [sys.executable, "-c", "import ray.llm._internal.batch.stages.prepare_multimodal_stage"],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        return "bare vLLM with every prompt n times (Ray's processor can be imported; it adds Ray Data to this)"
    reason = (done.stderr.strip().splitlines() or ["unknown error"])[-1][:200]
    return f"bare vLLM with every prompt n times, without Ray: its processor cannot be imported ({reason})"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--load-format", default="safetensors", choices=["safetensors", "auto", "dummy"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--shard", type=int, default=128)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--loop-prompts", type=int, default=4, help="how many prompts the slow loop is given")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--repeats", type=int, default=1, help="each way so often, in turns; the median counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        tokens, seconds = globals()[options.one](options)
        print(json.dumps({"tokens": tokens, "seconds": seconds}))
        return
    runs: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for way in options.ways.split(","):
            done = subprocess.run(
                [sys.executable, *sys.argv, "--one", way], stdout=subprocess.PIPE, text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{way} ended with status {done.returncode}")
            one = json.loads(done.stdout.strip().splitlines()[-1])
            runs.setdefault(way, []).append(one["tokens"] / one["seconds"])
            print(f"{way}: {runs[way][-1]:,.1f} tokens/s ({one['tokens']:,} tokens)", file=sys.stderr)
    rates = {way: sorted(found)[len(found) // 2] for way, found in runs.items()}
    # What the pipeline does on this machine if nobody says otherwise.
    usual = rates.get("pipeline" if "no GPU" in hardware() else "pipeline_overlap")
    result: dict[str, Any] = {way: round(rate, 1) for way, rate in rates.items()}
    for name, peer in (
        ("bare", "bare_vllm"),
        ("ray_data_llm", "ray_data_llm"),
        ("transformers_loop", "transformers_loop"),
    ):
        if usual is not None and peer in rates:
            result[f"ratio_to_{name}"] = round(usual / rates[peer], 3)
    if "ray_data_llm" in rates:
        result["ray_data_llm_is"] = ray_data_llm_is()
    result |= {"runs": {way: [round(r, 1) for r in found] for way, found in runs.items()}, "hardware": hardware()}
    result |= {"model": Path(options.model).name, "load_format": options.load_format, "prompts": options.prompts}
    result |= {"n": options.n, "max_tokens": options.max_tokens, "shard": options.shard}
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
