"""Labels of models in place of exact facts: how much of the gain is left, by scorer, and how many pairs it takes.

The model's own eight descriptions of each scene are ranked by one scorer after another; everything else is the
quickstart's. Nothing is rewritten, as facts would say what is wrong, and nothing is asked, as facts would know the
answer.
"""

from __future__ import annotations

from training.evidence.methods import pair_weights
from training.evidence.methods_since import CLAIMS
from training.evidence.runs import Variant

_PAIRS = (
    "rewrite=null",
    "source.questions_per_scene=0",
    # So that a margin means as much for every scorer: the distance of two answers, in standard deviations of the eight.
    "pair.standardise=true",
    "pair.margin=1.0",
    "train.draw=null",
    "train.learning_rate=2.0e-5",
    "train.epochs=100",
)


def _ranked(name: str, label: str, *overrides: str) -> Variant:
    return Variant(f"by-{name}", label, (*_PAIRS, *overrides))


def _claims(model: str) -> tuple[str, ...]:
    return ("score.scorers=[claims, objects]", CLAIMS.format(model=model), pair_weights(claims__true=1.0))


_REWARD = ("score.scorers=[reward_model, objects]", "score.reward_model.model=scenes-reward")
_CLIP = "score.clip={model: scenes-clip}"

SCORERS = (
    _ranked(
        "facts",
        "exact facts",
        "score.scorers=[facts, objects]",
        pair_weights(objects__covered=2.0, objects__hallucinated=-1.0, facts__wrong=-0.5, objects__repeated=-0.5),
        "pair.standardise=false",
        "pair.margin=0.5",
    ),
    # The quickstart's weights, in the row above, pay 2 for an object that is named and take 1.5 for one made up.
    _ranked(
        "facts-1-2",
        "exact facts, 1 : 2.5",
        "score.scorers=[facts, objects]",
        pair_weights(objects__covered=1.0, objects__hallucinated=-2.0, facts__wrong=-0.5, objects__repeated=-0.5),
        "pair.standardise=false",
        "pair.margin=0.5",
    ),
    _ranked("reward", "scenes-reward", *_REWARD, pair_weights(reward_model=1.0)),
    _ranked("clip", "CLIP", "score.scorers=[clip, objects]", _CLIP, pair_weights(clip__cosine=1.0)),
    _ranked(
        "both",
        "scenes-reward and CLIP",
        "score.scorers=[reward_model, clip, objects]",
        _REWARD[1],
        _CLIP,
        pair_weights(reward_model=1.0, clip__cosine=1.0),
    ),
    _ranked("claims-strong", "claims, by scenes-vlm-strong", *_claims("scenes-vlm-strong")),
    _ranked("claims-self", "claims, by the model itself", *_claims("scenes-vlm")),
    _ranked(
        "blind",
        "scenes-reward-blind",
        _REWARD[0],
        "score.reward_model.model=scenes-reward-blind",
        pair_weights(reward_model=1.0),
    ),
)

#: Exact facts with noise, which makes a scorer of any accuracy; and numbers of pairs. For ``figure.over_accuracy`` the
#: number is the name and the noise the level.
_NOISES, _SIZES = (0.0, 1.0, 2.0, 4.0), (500, 2000)
ACCURACY = tuple(
    _ranked(
        f"noise-{noise:g}-{size}",
        f"{size} pairs; noise {noise:g}",
        "score.scorers=[objects, 'training.evidence.noisy_facts:NoisyFacts']",
        f"score.options={{'training.evidence.noisy_facts:NoisyFacts': {{noise: {noise}}}}}",
        pair_weights(noisy=1.0),
        f"train.limit={size}",
    )
    for size in _SIZES
    for noise in _NOISES
)
