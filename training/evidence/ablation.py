"""mDPO taken apart: its terms, its rejected image, and plain DPO, all trained on the same pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evidence.before_after import spread
from training.evidence.runs import Variant

#: The first is the recipe itself.
TERMS = (
    Variant("mdpo", "mDPO"),
    Variant("no-image-term", "mDPO without the image term", ("train.weights.image=0",)),
    Variant("no-anchor", "mDPO without the anchor", ("train.weights.anchor=0",)),
    Variant("all-anchors", "mDPO, anchors on all three", ('train.anchors=["chosen","rejected","corrupted"]',)),
    Variant("dpo", "DPO", ("train.objective=dpo", "train.probe_image=true")),
    Variant("blind-dpo", "DPO without images", ("train.objective=dpo", "train.use_images=false")),
)
IMAGES = (
    Variant("crop-20-50", "crop keeping 20-50 %", ("train.corruption.keep_area=[0.2,0.5]",)),
    *(
        Variant(kind.replace("_", "-"), label, (f"train.corruption.kind={kind}", *more))
        for kind, label, more in (
            ("other", "another pair's image", ()),
            ("black", "black", ()),
            ("gaussian", "gaussian noise", ()),
            ("diffusion", "diffusion noise, step 500", ()),
            ("block_mask", "half of the cells masked", ()),
            ("augment", "MoCo v2 augmentation", ()),
            ("clip_mask", "CLIP-chosen mask", ("train.corruption.clip_model=scenes-clip",)),
        )
    ),
)

COLUMNS = (
    ("CHAIRs", "chair_s"),
    ("CHAIRi", "chair_i"),
    ("Cover", "cover"),
    ("length", "mean_length"),
    ("POPE adv.", "pope_adversarial_accuracy"),
    ("POPE F1", "pope_f1"),
    ("yes ratio", "pope_yes_ratio"),
)
#: Of the last logged steps of training; absent where the objective does not measure it.
TRAINED = (("chosen reward", "rewards/chosen"), ("image margin", "rewards/image_margins"))


def table(rows: Mapping[str, Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, float]]]]]) -> str:
    """Markdown: one row per variant, mean ± standard deviation over seeds; the base model above them.

    ``rows``: per label, for each seed, the run's summary and its training metrics.
    """
    names = [name for name, _ in (*COLUMNS, *TRAINED)]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    first = next(iter(rows.values()))
    base = [spread([run["evaluation"]["before"][key] for run, _ in first]) for _, key in COLUMNS]
    lines.append("| before | " + " | ".join([*base, *("-" for _ in TRAINED)]) + " |")
    for label, runs in rows.items():
        cells = [spread([run["evaluation"]["after"][key] for run, _ in runs]) for _, key in COLUMNS]
        cells += [_trained([steps for _, steps in runs], key) for _, key in TRAINED]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _trained(runs: Sequence[Sequence[Mapping[str, float]]], key: str) -> str:
    last = [[step[key] for step in steps if key in step][-3:] for steps in runs]
    return spread([statistics.fmean(values) for values in last]) if all(last) else "-"


def curves(rows: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], file: Path) -> None:
    """Chosen and rejected reward over training, mean and range over seeds, one panel a variant, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(rows), figsize=(2.6 * len(rows), 2.8), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (label, runs) in zip(panels[0], rows.items(), strict=True):
        steps = [line["step"] for line in runs[0]]
        for key, colour in (("rewards/chosen", "#1a9a82"), ("rewards/rejected", "#d6496a")):
            series = [[line[key] for line in run] for run in runs]
            at_step = list(zip(*series, strict=True))
            axes.plot(steps, [statistics.fmean(values) for values in at_step], color=colour, label=key)
            axes.fill_between(steps, list(map(min, at_step)), list(map(max, at_step)), color=colour, alpha=0.25)
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("step")
    panels[0][0].set_ylabel("reward")
    panels[0][0].legend(frameon=False, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    plt.close(figure)
