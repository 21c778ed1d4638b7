"""The methods that came after the three, beside them: the scenes, steps and base model of ``methods``.

Each is what its paper says, as far as one world of scenes and one training loop allow; what stands in for what is said
beside each. Where a method has labels of its own kind it keeps them; where it only has an objective or a way to make
rejected answers, exact facts label its pairs as they do mDPO's.
"""

from __future__ import annotations

from training.evidence.methods import BUDGET, METHODS, MPO_LOSSES, SCENES, STEPS, pair_weights
from training.evidence.runs import Variant

#: A third of the steps each, the last a little shorter.
_ROUNDS = 3
_ROUND = (f"train.max_steps={-(-STEPS // _ROUNDS)}", "train.epochs=100")
_LAST = (f"train.max_steps={STEPS - 2 * -(-STEPS // _ROUNDS)}", "train.epochs=100")
_DPO = ("train.objective=dpo",)

#: How the built-in VLMs are asked for claims, but for who is asked.
CLAIMS = (
    'score.claims={{model: {model}, vocabulary: scenes, template: "Is there {{claim}} in the image?", '
    'template_many: "Are there {{claim}} in the image?"}}'
)
#: arXiv 2506.11712: mDPO's pairs, each with a similar image whose own good answer is another one.
SYMMPO = ("train.objective=symmpo", "publish.similar.model=scenes-clip", *BUDGET)
#: Its pairs are right against wrong answers to questions, which mDPO's are, too; those of descriptions are mDPO's.
MPO = (*_DPO, *MPO_LOSSES, *BUDGET)
#: arXiv 2402.11411: plausible faults put into right texts, and noised images, which here are the rejected image of
#: mDPO's term: its own loss has the answer to the noised image among the rejected ones.
POVID = (
    f"source.scenes={SCENES}",
    "rewrite.restyle=null",
    "rewrite.questions=null",
    "publish.style={}",
    "pair.policy=training.evidence.policies:Injected",
    "pair.balance_length=false",
    "train.objective=mdpo",
    "train.weights={response: 1.0, image: 1.0, anchor: 0.0}",
    "train.corruption={kind: diffusion, steps: 500}",
    "train.draw=null",
    "train.learning_rate=1.0e-5",
    *BUDGET,
)
#: arXiv 2405.17220: what the model itself says of each claim of its answers ranks them; nobody else labels anything.
RLAIF_V = (
    *_DPO,
    "score.scorers=[claims]",
    CLAIMS.format(model="scenes-vlm"),
    pair_weights(claims__true=1.0),
    "pair.margin=0.02",
    *BUDGET,
)
#: arXiv 2508.20181: less CHAIR is better. The best of eight answers against the worst, where the paper has two.
CHAIR_DPO = (*_DPO, pair_weights(objects__chair_i=-1.0), "pair.margin=0.02", "train.beta=0.2", *BUDGET)
#: arXiv 2404.10501: what the model says about the noised image is the rejected answer; nothing is labelled.
SEVA = (
    *_DPO,
    "sample.models=[{}, {n: 2, noise: {kind: diffusion, step: 500}}]",
    "score.scorers=[objects]",
    "pair.weights={}",
    "pair.policy=corrupted_image",
    *BUDGET,
)
#: arXiv 2501.09695: first the corrected answers are learned, then the model's own new answers are corrected, and
#: preferred with mDPO's three terms.
OPA_FIRST = Variant(
    "opa-first",
    "OPA-DPO, first",
    (
        "pair.policy=rewritten",
        "train.loss_type=[sft]",
        "train.loss_weights=[1.0]",
        "train.weights={response: 1.0, image: 0.0, anchor: 0.0}",
        "train.learning_rate=2.0e-5",
        "train.max_steps=50",
        "train.epochs=100",
    ),
    recipe="quickstart",
)
OPA = (
    "pair.policy=rewritten",
    "train.loss_type=[sigmoid]",
    "train.loss_weights=[1.0]",
    "train.weights={response: 1.0, image: 1.0, anchor: 1.0}",
    "train.learning_rate=2.0e-5",
    f"train.max_steps={STEPS - 50}",
    "train.epochs=100",
)


def rounds(name: str, label: str, overrides: tuple[str, ...], recipe: str = "") -> Variant:
    """The last of three trainings, each on answers of the model that the one before has trained."""
    first = Variant(f"{name}-1", f"{label}, first round", (*overrides, *_ROUND), recipe)
    second = Variant(f"{name}-2", f"{label}, second round", (*overrides, *_ROUND), recipe, after=first)
    return Variant(f"{name}-3", label, (*overrides, *_LAST), recipe, after=second)


SINCE = (
    *METHODS,
    Variant("budget-symmpo", "SymMPO", SYMMPO),
    Variant("budget-mpo", "MPO", MPO),
    Variant("budget-povid", "POVID", POVID, recipe="ha_dpo"),
    Variant("budget-rlaif-v", "RLAIF-V, claims by itself", RLAIF_V),
    Variant("budget-chair-dpo", "CHAIR-DPO", CHAIR_DPO),
    Variant("budget-seva", "SeVa", SEVA),
    Variant("opa", "OPA-DPO", OPA, recipe="quickstart", after=OPA_FIRST),
    rounds("rounds-dpo", "DPO, three rounds", _DPO),
    rounds("rounds", "quickstart at 2e-5, three rounds", ("train.learning_rate=2.0e-5",), recipe="quickstart"),
)
