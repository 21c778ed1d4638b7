"""The methods side by side, and the quickstart, which puts them together.

All have equally many scenes to begin with, and equally many pairs in equally many steps.

The base model, the scenes and their descriptions' prompts are the same for all but PDS-DPO, which has its images made
from as many texts. What a method asks about an image beside a description belongs to the method. Every one takes
``STEPS`` steps of 32 pairs, however many it has: those with few see them more often. Everything else, such as the
learning rate, is its recipe's.
"""

from __future__ import annotations

import json

from training.evidence.runs import Variant

STEPS = 200
SCENES = 700
#: More epochs than ``STEPS`` can take.
BUDGET = (f"train.max_steps={STEPS}", "train.epochs=100")

#: arXiv 2411.10442, three losses: preference, quality, generation.
MPO_LOSSES = ("train.loss_type=[sigmoid,bco_pair,sft]", "train.loss_weights=[0.8,0.2,1.0]")


def pair_weights(**scores: float) -> str:
    """``pair.weights`` that take the place of the recipe's.

    >>> pair_weights(objects__chair_i=-1.0)
    'pair.weights={"objects.chair_i": -1.0}'
    """
    return "pair.weights=" + json.dumps({name.replace("__", "."): weight for name, weight in scores.items()})


METHODS = (
    Variant("budget-dpo", "DPO", ("train.objective=dpo", "train.probe_image=true", *BUDGET)),
    Variant("budget", "mDPO", BUDGET),
    Variant("budget", "HA-DPO", (f"source.scenes={SCENES}", *BUDGET), recipe="ha_dpo"),
    Variant("budget", "PDS-DPO", (f"source.texts.scenes={SCENES}", *BUDGET), recipe="pds_dpo"),
    # Its own budget is this one.
    Variant("", "quickstart: all together", recipe="quickstart"),
)

#: The quickstart's learning rate, and at half of it one other setting changed at a time. What is best is read off the
#: validation scenes (``--validation``).
_HALF = "train.learning_rate=2.0e-5"
SETTINGS = (
    Variant("", "quickstart: learning rate 4e-5"),
    Variant("lr-1e-5", "learning rate 1e-5", ("train.learning_rate=1.0e-5",)),
    Variant("lr-2e-5", "learning rate 2e-5", (_HALF,)),
    Variant("lr-8e-5", "learning rate 8e-5", ("train.learning_rate=8.0e-5",)),
    Variant("sft-1", "2e-5, supervised loss, weight 1", (_HALF, "train.loss_weights=[1.0,1.0]")),
    Variant("sft-4", "2e-5, supervised loss, weight 4", (_HALF, "train.loss_weights=[1.0,4.0]")),
    Variant("beta-0.05", "2e-5, beta 0.05", (_HALF, "train.beta=0.05")),
    Variant("beta-0.2", "2e-5, beta 0.2", (_HALF, "train.beta=0.2")),
    # arXiv 2411.10442's three.
    Variant("mpo", "2e-5, MPO's losses", (_HALF, *MPO_LOSSES)),
    Variant("image-0.5", "2e-5, image term, weight 0.5", (_HALF, "train.weights.image=0.5")),
    # 1 for an object left out and 2.5 for one made up (it is a wrong fact, too), in place of 2 and 1.5.
    Variant(
        "weights-1-2",
        "2e-5, left out 1, made up 2.5",
        (
            _HALF,
            pair_weights(
                objects__covered=1.0,
                objects__hallucinated=-2.0,
                facts__wrong=-0.5,
                objects__repeated=-0.5,
                correctness=1.0,
            ),
        ),
    ),
)
