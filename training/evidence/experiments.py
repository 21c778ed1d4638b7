"""The experiments of the evidence page by name: which variants, and what is shown of them."""

from __future__ import annotations

from dataclasses import dataclass

from training.evidence import ablation, ha, methods, methods_since, pds, shortcut, smollm, without_facts
from training.evidence.metric_columns import (
    ACCURACY,
    BLINDNESS,
    MARGIN,
    OBJECTS,
    PAIRS,
    POPE,
    PROBES,
    SPLITS,
    STYLE,
    TRAINED,
    Column,
)
from training.evidence.runs import Variant

_SHR = Column("SHR", "shr")


@dataclass(frozen=True)
class Experiment:
    """Variants of ``recipe``, each run with every seed. ``probed``: log-probs of held-out pairs are looked at, too.
    ``front``: hallucination is drawn against Cover. ``levels``: rows are drawn as lines over what stands behind the
    semicolon of their names. ``accuracy``: how often labels are right is looked at, and
    drawn against."""

    recipe: str
    variants: tuple[Variant, ...]
    columns: tuple[Column, ...] = (*OBJECTS, *POPE, *TRAINED)
    probed: bool = False
    front: bool = False
    levels: bool = False
    accuracy: bool = False


_METHODS = (*OBJECTS, _SHR, *SPLITS, *POPE[1:])
_RANKED = (*ACCURACY, PAIRS, BLINDNESS, MARGIN, *OBJECTS, _SHR, *POPE)
_TAKEN_APART = (*OBJECTS, *POPE, *TRAINED, *PROBES)

EXPERIMENTS: dict[str, Experiment] = {
    "mdpo": Experiment("mdpo", ablation.TERMS, _TAKEN_APART, probed=True),
    "mdpo-images": Experiment("mdpo", ablation.TERMS[:1] + ablation.IMAGES, _TAKEN_APART, probed=True),
    "ha-style": Experiment("ha_dpo", ha.STYLES, (*SPLITS, _SHR, *OBJECTS[:1], OBJECTS[2], *STYLE)),
    "pds-sizes": Experiment("pds_dpo", pds.SIZES, (*OBJECTS, *POPE)),
    "pds-rewards": Experiment("pds_dpo", pds.REWARDS, (*OBJECTS, *POPE, *STYLE[:1], STYLE[2])),
    "methods": Experiment("mdpo", methods.METHODS, _METHODS, front=True),
    "settings": Experiment("quickstart", methods.SETTINGS, _METHODS, front=True),
    "methods-since": Experiment("mdpo", methods_since.SINCE, _METHODS, front=True),
    "smollm": Experiment("mdpo", smollm.SMOLLM, _METHODS, front=True),
    "shortcut": Experiment(
        "ha_dpo", shortcut.SHORTCUT, (PAIRS, BLINDNESS, *OBJECTS, _SHR, *POPE, *PROBES[:4]), probed=True, levels=True
    ),
    "without-facts": Experiment(
        "quickstart", without_facts.SCORERS + without_facts.ACCURACY, _RANKED, front=True, accuracy=True
    ),
}
