"""Which of the pairs of a prompt are trained on."""

from __future__ import annotations

from pydantic import Field

from pipeline.base.config import Count, Frozen


class Draw(Frozen):
    """Some pairs of each prompt are trained on.

    The defaults are those of HA-DPO's released code, which draws before the training and trains one epoch. For several
    epochs with a draw of their own set ``rounds`` to their number and ``epochs`` to 1.
    """

    rounds: Count = Field(1, description="pairs of a prompt that are drawn")
    descriptions: Count = Field(2, description="times as many where the answer is a description")
