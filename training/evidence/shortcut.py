"""What is learned from pairs whose chosen texts give themselves away, and what helps.

The pairs are HA-DPO's descriptions: wrong ones, and what became of them. All are worded anew by the grammar; which
wordings meet is the only difference between the strengths (``policies.TwoWriters``), so facts and labels stay. Where
two writers are asked for there are fewer pairs: a prompt may lack a wording of one of them.
"""

from __future__ import annotations

from training.evidence.runs import Variant

_STEPS = ("train.max_steps=100", "train.epochs=100", "train.learning_rate=1.0e-5", "train.draw=null")
#: Descriptions alone, in eight wordings.
_PAIRS = (
    "source.scenes=700",
    "sample.n=4",
    "rewrite.inject=null",
    "rewrite.questions=null",
    "rewrite.restyle.paraphrases=8",
    "score.scorers=[facts, objects]",
    'pair.weights={"facts.wrong": -1.0}',
    "pair.policy=training.evidence.policies:TwoWriters",
    "pair.max_length_ratio=2.0",
    # Otherwise the shorter text is the better one in every strength.
    "pair.balance_length=true",
    "publish.style={}",
)
_CROP = ("train.objective=mdpo",)
_OTHER = ("train.objective=mdpo", "train.corruption={kind: other}")
_SYMMPO = ("train.objective=symmpo", "publish.similar.model=scenes-clip")
_OBJECTIVES = (
    ("dpo", "DPO", ("train.objective=dpo",)),
    ("mdpo", "mDPO, crop", _CROP),
    ("other", "mDPO, another image", _OTHER),
    ("anchor", "mDPO without the image term", (*_CROP, "train.weights.image=0")),
    ("symmpo", "SymMPO", _SYMMPO),
)
_STRENGTHS = ((0.0, "no shortcut"), (0.5, "in half"), (1.0, "in all"))


def _variant(name: str, label: str, share: float, *overrides: str) -> Variant:
    options = (*_PAIRS, f"pair.options={{share: {share}}}", *_STEPS, *overrides)
    return Variant(f"shortcut-{100 * share:g}-{name}", label, options)


SHORTCUT = (
    *(
        _variant(name, f"{label}; {strength}", share, *overrides)
        for share, strength in _STRENGTHS
        for name, label, overrides in _OBJECTIVES
    ),
    *(
        _variant("blind", f"DPO without images; {strength}", share, "train.objective=dpo", "train.use_images=false")
        for share, strength in _STRENGTHS
    ),
    # The chosen text is then the shorter one in most pairs, as corrected texts are.
    _variant(
        "unbalanced", "DPO, lengths as they come; no shortcut", 0.0, "train.objective=dpo", "pair.balance_length=false"
    ),
)
