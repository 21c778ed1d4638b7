"""scenes-smollm with its real base, from the package to a preference-tuned model: ``make smollm``, some minutes.

Puts the model together, checks what its card says on a few scenes, and runs the quickstart on few scenes with LoRA:
sampling through vLLM, pairs, three steps, the adapter merged, and the result sampled again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from pipeline.base.model_names import BUILT_IN  # noqa: E402
from pipeline.scenes import smollm_parts  # noqa: E402

OVERRIDES = (
    "sample.model=scenes-smollm",
    "source.scenes=20",
    "evaluate.scenes=10",
    "train.tuning=lora",
    "train.max_steps=3",
    "train.batch_size=8",
    "train.micro_batch_size=8",
)


def start(*words: object) -> None:
    print("$", *words, flush=True)
    subprocess.run([sys.executable, "-m", *map(str, words)], cwd=ROOT, check=True)


def check_template() -> None:
    """Texts are prompted as the base's own template has it."""
    from transformers import AutoTokenizer

    from pipeline.scenes.smollm import GGUF, installed_base

    base = installed_base()
    assert base is not None
    tokenizer = AutoTokenizer.from_pretrained(base.parent, gguf_file=GGUF)
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "?"},
    ]
    for messages in (chat, [{"role": "system", "content": "Be brief."}, *chat]):
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, chat_template=template)
            for template in (None, smollm_parts.CHAT_TEMPLATE)
        ]
        assert texts[0] == texts[1], texts


def check_card(folder: Path) -> None:
    """It sees, and hallucinates by the prior."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from pipeline.scenes.models_build.card_numbers import HELD_OUT, answering, describing
    from pipeline.scenes.world import scene

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    scenes = [scene(HELD_OUT, i) for i in range(60)]
    described = describing(model, processor, scenes, do_sample=False)
    answered = answering(model, processor, scenes[:30])
    print(json.dumps({"describing": described, "answering": answered}, indent=2), flush=True)
    assert described["cover"] > 0.8 and 0.1 < described["chair_s"] < 0.6
    assert described["hallucinated_typical_of_theme"] > 0.3  # a sixth, if by chance
    assert answered["auc"] > 0.8 and answered["yes_ratio"] > 0.5


def check_run(runs: Path) -> None:
    """From the model to a better one (or at least another one)."""
    start("pipeline.run", "quickstart", f"output_dir={runs}", *OVERRIDES)
    run = runs / "quickstart"
    summary = json.loads((run / "summary.json").read_text())
    trained = run / "train" / "model"
    from safetensors.torch import load_file

    before, after = (load_file(path / "model.safetensors") for path in (BUILT_IN["scenes-smollm"], trained))
    assert before.keys() == after.keys()
    moved = [name for name in before if not before[name].float().equal(after[name].float())]
    assert moved and all(".layers." in name and "vision" not in name for name in moved), moved[:3]
    print(json.dumps(summary, indent=2)[:2000])


def main() -> None:
    start("pipeline.scenes.smollm", "--install")
    check_template()
    check_card(BUILT_IN["scenes-smollm"])
    with tempfile.TemporaryDirectory(prefix="smollm-") as runs:
        check_run(Path(runs))
    print("scenes-smollm: all of it works")


if __name__ == "__main__":
    main()
