"""The preference objectives, as pure functions of summed log-probs.

Every argument named ``policy_*`` or ``ref_*`` is a float tensor of shape [B]: log p(response | image, prompt) in nats,
summed (not averaged) over the response's tokens, under the model being trained or the frozen reference. ``corrupted``
means: the chosen response, read next to the corrupted image. Losses are returned per pair, shape [B], unreduced.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid


def reward(policy: Tensor, ref: Tensor, beta: float) -> Tensor:
    """DPO's implicit reward r = beta * (log pi(y|m,q) - log pi_ref(y|m,q)), shape [B].

    >>> reward(Tensor([-10.0]), Tensor([-12.0]), beta=0.5)
    tensor([1.])
    """
    return beta * (policy - ref)


def dpo(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Direct preference optimisation, Rafailov et al. 2023, arXiv 2305.18290, eq. 7.

    L = -log sigmoid( r(m, q, y_w) - r(m, q, y_l) )
    """
    return -logsigmoid(reward(policy_chosen, ref_chosen, beta) - reward(policy_rejected, ref_rejected, beta))


class MdpoTerms(NamedTuple):
    """The three terms of mDPO, each [B]."""

    response: Tensor
    image: Tensor
    anchor: Tensor

    def total(self, response: float = 1.0, image: float = 1.0, anchor: float = 1.0) -> Tensor:
        """The weighted sum, [B]; the paper weighs all terms 1."""
        return response * self.response + image * self.image + anchor * self.anchor


def mdpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    policy_corrupted: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    ref_corrupted: Tensor,
    beta: float,
    anchor_delta: float = 0.0,
) -> MdpoTerms:
    """Multimodal DPO, Wang et al. 2024, arXiv 2406.11839, section 3: L_mDPO = L_DPOm + L_CoPO + L_AncPO.

    With the image m_w, its corrupted version m_l, and r as in ``reward``:

    - response  L_DPOm  = -log sigmoid( r(m_w, q, y_w) - r(m_w, q, y_l) )
    - image     L_CoPO  = -log sigmoid( r(m_w, q, y_w) - r(m_l, q, y_w) ): the answer must need the image
    - anchor    L_AncPO = -log sigmoid( r(m_w, q, y_w) - delta ): the chosen answer must not lose likelihood
    """
    chosen = reward(policy_chosen, ref_chosen, beta)
    rejected = reward(policy_rejected, ref_rejected, beta)
    corrupted = reward(policy_corrupted, ref_corrupted, beta)
    return MdpoTerms(
        response=-logsigmoid(chosen - rejected),
        image=-logsigmoid(chosen - corrupted),
        anchor=-logsigmoid(chosen - anchor_delta),
    )
