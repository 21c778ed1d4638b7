"""Which of the pairs of a prompt are trained on."""

from __future__ import annotations

from training.config.base import Count, Frozen


class Draw(Frozen):
    """Of all pairs of a prompt one is drawn for each of ``rounds``; where the answer is a description, ``descriptions``
    times as many.

    The defaults are those of HA-DPO's released code, which draws before the training and trains one epoch. For several
    epochs with a draw of their own set ``rounds`` to their number and ``epochs`` to 1.
    """

    rounds: Count = 1
    descriptions: Count = 2
