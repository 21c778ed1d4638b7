"""Our trainer against TRL 1.16's DPOTrainer: the same numbers, in less time and memory.

    python benchmarks/trainer.py --json OUT [--geometry llava|scenes]

``llava``: the LLaVA-1.5 geometry (336 px, 576 image tokens, prompts of 60 and answers of 150 tokens) with a language
model scaled to what 2 cores do in minutes. ``scenes``: the built-in VLM on descriptions of scenes. With
``--arch llava-1.5-7b --random-weights`` the llava geometry at full size, in bfloat16 with LoRA, for a GPU.

Both sides read the same dataset, start from the same weights, take the same batches of pairs and the same AdamW; every
job is a process of its own that loads the model, trains and saves it. Times are of the whole job after its imports, the
reference pass included; memory is the process's peak above what its imports take. Parity is measured first: token ids
and pixels are TRL's collator's, the policy is not the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import output

os.environ.setdefault("HF_HUB_OFFLINE", "1")

OBJECTS = [
    a + b for a in "bdfgklmnprstvz" for b in ("ack", "all", "and", "ane", "ant", "ark", "art", "ash", "ate", "ave")
]
#: Each saving alone, over the trainer with none of them.
SAVINGS = {
    "share_prefix": {"share_prefix": True},
    "share_image_features": {"share_image_features": True},
    "cache_image_features": {"share_image_features": True, "cache_image_features": True},
    "cache_reference": {"cache_reference": True},
    "head_on_responses": {"head_on_responses": True},
    # It builds on the two above.
    "last_layer_on_responses": {"last_layer_on_responses": True, "share_prefix": True, "head_on_responses": True},
}
NOTHING: dict[str, Any] = dict.fromkeys(SAVINGS, False) | {"group_by_length": False, "head_chunk": None}


def llava(folder: Path, pairs: int, seven_b: bool) -> tuple[Path, Path]:
    """A LLaVA of random weights and random pairs for it; prompt 576 + 60 tokens, answers of 150."""
    import torch
    from PIL import Image
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    template = (
        "{% for m in messages %}<{{ m['role'] }}>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
        "{% endfor %}{% endif %}{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<user>", "<assistant>"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *OBJECTS])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(special)
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=1024 if seven_b else 128,
        intermediate_size=4096 if seven_b else 512,
        num_hidden_layers=24 if seven_b else 3,
        num_attention_heads=16 if seven_b else 2,
        image_size=336,
        patch_size=14,
        projection_dim=768 if seven_b else 128,
    )
    text = LlamaConfig(
        vocab_size=32064 if seven_b else 1024,
        hidden_size=4096 if seven_b else 512,
        intermediate_size=11008 if seven_b else 1376,
        num_hidden_layers=32 if seven_b else 4,
        num_attention_heads=32 if seven_b else 4,
        num_key_value_heads=32 if seven_b else 4,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=4, image_seq_length=576)  # type: ignore[call-arg]
    with torch.device("cuda" if seven_b else "cpu"):
        model = LlavaForConditionalGeneration(config).to(torch.bfloat16 if seven_b else torch.float32)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")

    rng = random.Random(0)
    speak = lambda n: " ".join(rng.choices(OBJECTS, k=n))  # noqa: E731
    rows = []
    for _ in range(pairs):
        image = Image.frombytes("RGB", (48, 48), rng.randbytes(48 * 48 * 3)).resize((448, 336))
        rows.append(_row(image, speak(58), speak(149), speak(149)))  # with <user>, <assistant> and </s>: 60 and 150
    return folder / "model", _save(rows, folder)


def scenes(folder: Path, pairs: int) -> tuple[Path, Path]:
    """The built-in VLM, and descriptions of scenes with and without a made-up object."""
    import io

    from PIL import Image

    from pipeline.base import model_names as models
    from pipeline.scenes import grammar, raster, world

    rows = []
    for index in range(pairs):
        scene, rng = world.scene(77, index), random.Random(index)
        true = grammar.reading_order(scene)
        extra = grammar.imagine(scene, rng)
        good = grammar.describe(true, random.Random(index))
        bad = grammar.describe([*true, extra] if extra else true[:1], random.Random(index + 10**6))
        image = Image.open(io.BytesIO(raster.png(scene))).convert("RGB")
        rows.append(_row(image, "Describe the picture.", good, bad if bad != good else good + " Nothing else."))
    return Path(models.resolve("scenes-vlm")), _save(rows, folder)


def _row(image: Any, question: str, good: str, bad: str) -> dict[str, Any]:
    return {
        "images": [image],
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": good}],
        "rejected": [{"role": "assistant", "content": bad}],
    }


def _save(rows: list[dict[str, Any]], folder: Path) -> Path:
    import datasets

    message = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    features = datasets.Features(
        images=datasets.List(datasets.Image()), prompt=message, chosen=message, rejected=message
    )
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(folder / "data" / "pairs"))
    return folder / "data" / "pairs"


def _ours(job: dict[str, Any], **changes: Any) -> Any:
    from training.config import make_config

    values = {
        "model": job["model"],
        "dataset": job["dataset"],
        "output_dir": job["output"],
        "tuning": job["tuning"],
        "lora": {"r": 64, "alpha": 128},
        "learning_rate": 1e-5,
        "epochs": job["epochs"],
        "batch_size": job["batch"],
        "micro_batch_size": job["micro"],
        "dtype": job["dtype"],
        "gradient_checkpointing": job["dtype"] == "bfloat16",
        "warmup_ratio": 0.0,
        "save_steps": 10**6,
        "logging_steps": 10,
        "cache_image_features": True,
        "add_bos": "never",  # as TRL
        "resume": False,
    }
    return make_config(values | changes)


def _trl(job: dict[str, Any]) -> Any:
    import datasets
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration
    from trl import DPOConfig, DPOTrainer

    half = job["dtype"] == "bfloat16"
    options = DPOConfig(
        output_dir=job["output"],
        beta=0.1,
        max_length=None,
        use_cpu=not half,
        bf16=half,
        gradient_checkpointing=half,
        report_to=[],
        learning_rate=1e-5,
        weight_decay=0.05,
        adam_beta2=0.98,
        lr_scheduler_type="cosine",
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=job["micro"],
        gradient_accumulation_steps=job["batch"] // job["micro"],
        save_strategy="no",
        logging_steps=10,
        disable_tqdm=True,
        seed=0,
    )
    adapter = None
    if job["tuning"] == "lora":
        from peft import LoraConfig

        adapter = LoraConfig(r=64, lora_alpha=128, target_modules=r".*language_model.*_proj")
    policy = LlavaForConditionalGeneration.from_pretrained(
        job["model"], dtype=torch.bfloat16 if half else torch.float32
    )
    # What both train: the language model alone.
    policy.model.vision_tower.requires_grad_(False)
    policy.model.multi_modal_projector.requires_grad_(False)
    rows = datasets.load_from_disk(job["dataset"])
    processor = AutoProcessor.from_pretrained(job["model"])
    return DPOTrainer(policy, args=options, train_dataset=rows, processing_class=processor, peft_config=adapter)


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """One training job in this process: seconds and peak memory (bytes) above the imports'."""
    import torch
    import torch.utils.tensorboard
    from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration  # noqa: F401
    from trl import DPOTrainer  # noqa: F401

    from training.loop.trainer import train

    cuda = torch.cuda.is_available()
    before = _peak()
    started = time.perf_counter()
    if job["who"] == "trl":
        trl = _trl(job)
        trl.train()
        trl.save_model(job["output"])
    else:
        train(_ours(job, **job["changes"]))
    seconds = time.perf_counter() - started
    memory = torch.cuda.max_memory_allocated() if cuda else _peak() - before
    return {"seconds": seconds, "memory": memory, "pairs_per_s": job["pairs"] * job["epochs"] / seconds}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parity(job: dict[str, Any]) -> dict[str, float]:
    """Per-token log-probs, loss and gradients of one batch, ours against TRL's, under a policy that has moved."""
    import torch

    from reward.forward.shareable import enable
    from reward.forward.token_logps import Forward, token_logps
    from training import formats
    from training.data.dataset import prepare
    from training.forward.batch import collate
    from training.forward.logps import sequence_logps
    from training.loss.objectives import reward

    trainer = _trl(job)
    dataset = prepare(formats.open(job["dataset"]), trainer.processing_class, _ours(job, objective="dpo"))
    count = min(4, job["pairs"])
    rows = trainer.train_dataset.select_columns(["images", "prompt", "chosen", "rejected"])
    theirs = dict(trainer.data_collator([rows[i] for i in range(count)]))
    theirs = {key: value.to(trainer.args.device) for key, value in theirs.items()}
    model, forward = trainer.model, Forward(dtype=getattr(torch, job["dtype"]), head_chunk=4096)
    batch = collate(dataset, range(count), ("chosen", "rejected"))
    enable(model)
    with torch.no_grad():
        ref = sequence_logps(model, batch, forward) if job["tuning"] == "full" else None
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 2e-3
                parameter.add_(noise.to(parameter.device, parameter.dtype))
        labels = theirs["input_ids"].masked_fill(theirs["completion_mask"] == 0, -100)
        inputs = {key: value for key, value in theirs.items() if key != "completion_mask"}
        trl_logps = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs
        shifted = theirs["completion_mask"][:, 1:].bool()
        per_row = [row[mask] for row, mask in zip(trl_logps[:, -shifted.shape[1] :], shifted, strict=True)]
        layout, entries = token_logps(model, batch, forward)
        worst = 0.0
        for row, sequence in enumerate(batch.order.flatten().tolist()):
            ours = entries[layout.entries[layout.owners == sequence]]
            worst = max(worst, (ours - per_row[row]).abs().max().item())
        if ref is None:
            with model.disable_adapter():
                ref = sequence_logps(model, batch, forward)
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trl_loss = trainer._compute_loss(model, theirs, return_outputs=False)
    trl_loss.backward()
    trl_grads = [parameter.grad.clone() for parameter in moving]
    model.zero_grad()
    chosen, rejected = sequence_logps(model, batch, forward)
    margin = reward(chosen, ref[0], 0.1) - reward(rejected, ref[1], 0.1)
    loss = -torch.nn.functional.logsigmoid(margin).mean()
    loss.backward()
    grads = [parameter.grad for parameter in moving]
    apart = sum((a - b).double().square().sum() for a, b in zip(grads, trl_grads, strict=True)).sqrt()
    size = sum(b.double().square().sum() for b in trl_grads).sqrt()
    return {
        "max_abs_dlogp_per_token": worst,
        "abs_dloss": abs(loss.item() - trl_loss.item()),
        "rel_dgrad": (apart / size).item(),
        "loss": trl_loss.item(),
    }


def in_process(what: str, job: dict[str, Any]) -> dict[str, Any]:
    """``what`` ("job" or "parity") in a fresh process; its result."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer, tempfile.TemporaryDirectory() as output:
        given = json.dumps(job | {"output": str(Path(output) / "out"), "answer": answer.name})
        command = [sys.executable, __file__, "--inside", what, given]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment())
        if done.returncode:
            raise SystemExit(f"{what} {job['who']} failed:\n{done.stdout[-3000:]}")
        result: dict[str, Any] = json.loads(Path(answer.name).read_text())
    print(f"{job['name']}: {result}", file=sys.stderr, flush=True)
    return result


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--geometry", choices=("llava", "scenes"), default="llava")
    parser.add_argument("--arch", choices=("scaled", "llava-1.5-7b"), default="scaled")
    parser.add_argument("--random-weights", action="store_true", help="the 7B model is made, not downloaded")
    parser.add_argument("--pairs", type=int, help="default: 32 (llava), 512 (scenes)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--savings", action=argparse.BooleanOptionalAction, default=True, help="each saving alone")
    parser.add_argument("--repeats", type=int, default=1, help="TRL and ours so often, in turns; the median counts")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        what, given = options.inside
        job = json.loads(given)
        result = run_job(job) if what == "job" else parity(job)
        Path(job["answer"]).write_text(json.dumps(result))
        return
    big = options.arch == "llava-1.5-7b"
    if big and not options.random_weights:
        raise SystemExit("--arch llava-1.5-7b needs --random-weights: nothing is downloaded")
    with tempfile.TemporaryDirectory(prefix="trainer-") as folder:
        pairs = options.pairs or (512 if options.geometry == "scenes" else 32)
        model, dataset = (
            scenes(Path(folder), pairs) if options.geometry == "scenes" else llava(Path(folder), pairs, big)
        )
        common = {
            "model": str(model),
            "dataset": str(dataset),
            "pairs": pairs,
            "epochs": options.epochs,
            "batch": 32 if options.geometry == "scenes" else 8,
            "micro": 32 if options.geometry == "scenes" else 4,
            "dtype": "bfloat16" if big else "float32",
            "tuning": "lora" if big else "full",
        }
        result = measure_all(common, options.savings, options.repeats)
    result |= {"geometry": options.geometry, "arch": options.arch, "pairs": pairs, "epochs": options.epochs}
    result |= hardware()
    output.tell(result, options.json)


def measure_all(common: dict[str, Any], savings: bool, repeats: int) -> dict[str, Any]:
    """All jobs, one after the other; those that are compared ``repeats`` times, in turns."""

    def job(name: str, who: str, **changes: Any) -> dict[str, Any]:
        dataset = Path(common["dataset"])
        # Every job pays for its own reference, and for tokenising.
        shutil.rmtree(dataset.with_name(f"{dataset.name}-reference"), ignore_errors=True)
        return in_process("job", common | {"name": name, "who": who, "changes": changes})

    same = in_process("parity", common | {"name": "parity", "who": "both"})
    rounds = [
        {
            "TRL DPO": job("TRL DPO", "trl"),
            "DPO": job("DPO", "ours", objective="dpo"),
            "mDPO": job("mDPO", "ours", objective="mdpo"),
            "live": job("DPO without the reference cache", "ours", objective="dpo", cache_reference=False),
        }
        for _ in range(repeats)
    ]
    trl, dpo, mdpo, live = (
        {key: statistics.median(report[name][key] for report in rounds) for key in ("pairs_per_s", "memory")}
        for name in rounds[0]
    )
    result: dict[str, Any] = {
        **same,
        "trl_dpo_pairs_per_s": trl["pairs_per_s"],
        "dpo_pairs_per_s": dpo["pairs_per_s"],
        "mdpo_pairs_per_s": mdpo["pairs_per_s"],
        "dpo_without_reference_cache_pairs_per_s": live["pairs_per_s"],
        "dpo_speedup": dpo["pairs_per_s"] / trl["pairs_per_s"],
        "mdpo_vs_trl_dpo": mdpo["pairs_per_s"] / trl["pairs_per_s"],
        "dpo_without_reference_cache_speedup": live["pairs_per_s"] / trl["pairs_per_s"],
        "peak_memory_ratio": dpo["memory"] / trl["memory"],
        "mdpo_peak_memory_ratio": mdpo["memory"] / trl["memory"],
        "peak_memory_gb": {
            "trl_dpo": trl["memory"] / 2**30,
            "dpo": dpo["memory"] / 2**30,
            "mdpo": mdpo["memory"] / 2**30,
        },
        "pairs_per_s_of_each_round": [{name: report[name]["pairs_per_s"] for name in report} for report in rounds],
    }
    if savings:
        naive = job("DPO without any saving", "ours", objective="dpo", **NOTHING)
        alone = {
            name: job(f"DPO, {name} alone", "ours", objective="dpo", **(NOTHING | changes))["pairs_per_s"]
            for name, changes in SAVINGS.items()
        }
        heavy = job("mDPO, its pairs not weighed", "ours", objective="mdpo", weigh_pairs=False)
        result["mdpo_not_weighed_vs_trl_dpo"] = heavy["pairs_per_s"] / trl["pairs_per_s"]
        result["mdpo_not_weighed_peak_memory_ratio"] = heavy["memory"] / trl["memory"]
        result["no_saving_pairs_per_s"] = naive["pairs_per_s"]
        result["each_saving_alone_speedup"] = {name: rate / naive["pairs_per_s"] for name, rate in alone.items()}
    return result


def hardware() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"hardware": torch.cuda.get_device_name(), "cpus": os.cpu_count()}
    return {"hardware": "CPU", **output.MACHINE}


if __name__ == "__main__":
    main()
