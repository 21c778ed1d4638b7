"""HA-DPO: what the style consistency of its pairs is good for. The same descriptions are rewritten and paired anew."""

from __future__ import annotations

from training.evidence.runs import Variant

#: A gate on style would stop what is to be measured here.
_UNGATED = "publish.style={}"

STYLES = (
    Variant("", "HA-DPO"),
    # Corrected and original texts meet as they are.
    Variant("as-written", "without restyling", ("rewrite.restyle=null", _UNGATED)),
    # Pairs are kept though the shorter text wins most of them.
    Variant("unbalanced", "without length balance", ("pair.balance_length=false", _UNGATED)),
    Variant("neither", "without either", ("rewrite.restyle=null", "pair.balance_length=false", _UNGATED)),
)
