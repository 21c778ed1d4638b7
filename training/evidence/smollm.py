"""A real language model in the built-in world (``scenes-smollm``): DPO, mDPO and the quickstart, with LoRA.

Sizes are what two cores do in an evening, in bfloat16, for which CPUs have units (AMX) that are faster than those for
float32. ``python -m pipeline.scenes.smollm`` puts the model together first.
"""

from __future__ import annotations

from training.evidence.runs import Variant

_SIZES = (
    "sample.model=scenes-smollm",
    "dtype=bfloat16",
    "source.scenes=200",
    "train.tuning=lora",
    "train.learning_rate=1.0e-4",
    "train.max_steps=60",
    "train.epochs=100",
    "evaluate.scenes=200",
    "evaluate.per_image=1",
)

SMOLLM = (
    Variant("smollm-dpo", "DPO", (*_SIZES, "train.objective=dpo", "train.probe_image=true")),
    Variant("smollm", "mDPO", _SIZES),
    Variant("smollm", "quickstart: all together", _SIZES, recipe="quickstart"),
)
