"""The preference objectives, as pure functions of summed log-probs.

A log-prob is a float tensor [B]: log p(response | image, prompt) in nats, summed (not averaged) over the response's
tokens, one value per pair. A reward [B] is ``reward`` of the log-probs of policy and reference; it carries beta. Losses
and terms are returned per pair, [B], unreduced; the trainer divides their sum by the pairs of the whole step.

Names and formulas of ``LOSSES`` are those of TRL 1.16 (``trl/trainer/dpo_trainer.py``), and
``tests/training/loss/test_objectives_trl.py`` holds them equal. In formulas y_w is the chosen response, y_l the
rejected one, r_w and r_l are their rewards, and h = r_w - r_l.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


def reward(policy: Tensor, ref: Tensor, beta: float) -> Tensor:
    """DPO's implicit reward r = beta * (log pi(y|m,q) - log pi_ref(y|m,q)), shape [B].

    >>> reward(Tensor([-10.0]), Tensor([-12.0]), beta=0.5)
    tensor([1.])
    """
    return beta * (policy - ref)


@dataclass(frozen=True, slots=True)
class Responses:
    """What a preference loss reads: the two responses of B pairs, next to the same image and prompt.

    - ``chosen``, ``rejected``, ``ref_chosen``, ``ref_rejected`` [B]: log-probs under policy and reference
    - ``chosen_tokens``, ``rejected_tokens`` [B]: response tokens, of any number type
    - ``mean_chosen_tokens``: chosen tokens per pair, averaged over the whole optimiser step. ``sft`` divides by it, so
      that its sum over a step does not depend on how the step is cut into micro-batches
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    mean_chosen_tokens: float

    def rewards(self, beta: float) -> tuple[Tensor, Tensor]:
        """r_w and r_l."""
        return reward(self.chosen, self.ref_chosen, beta), reward(self.rejected, self.ref_rejected, beta)

    def margin(self, beta: float) -> Tensor:
        """h = r_w - r_l."""
        chosen, rejected = self.rewards(beta)
        return chosen - rejected

    def margin_per_token(self) -> Tensor:
        """The difference of the two log-ratios, each divided by the tokens of its response; without beta."""
        chosen, rejected = self.rewards(1.0)
        return chosen / self.chosen_tokens.clamp(min=1) - rejected / self.rejected_tokens.clamp(min=1)


#: The pair of the examples below: log-ratios 2 and -3, so with beta 0.1 r_w = 0.2, r_l = -0.3 and h = 0.5.
_PAIR = Responses(
    chosen=Tensor([-10.0]),
    rejected=Tensor([-14.0]),
    ref_chosen=Tensor([-12.0]),
    ref_rejected=Tensor([-11.0]),
    chosen_tokens=Tensor([4.0]),
    rejected_tokens=Tensor([6.0]),
    mean_chosen_tokens=5.0,
)


def sigmoid(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Direct preference optimisation, Rafailov et al. 2023, arXiv 2305.18290, eq. 7: L = -log sigmoid(h).

    As in TRL, ``label_smoothing`` is not read; ``robust`` is the loss that does.

    >>> sigmoid(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([0.4741])
    """
    return -logsigmoid(responses.margin(beta))


def ipo(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Identity preference optimisation, Azar et al. 2023, arXiv 2310.12036, eq. 17: L = (h' - 1 / (2 beta))^2.

    h' is the difference of log-ratios per token, as in TRL; the paper's text has sums. ``beta`` is the paper's tau.

    >>> ipo(_PAIR, beta=0.1, label_smoothing=0.0)  # (2/4 + 3/6 - 5)^2
    tensor([16.])
    """
    return (responses.margin_per_token() - 1 / (2 * beta)) ** 2


def hinge(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """The hinge of SLiC (arXiv 2305.10425) over DPO's margin, "hinge-norm" of RSO, Liu et al. 2023, arXiv 2309.06657.

    L = max(0, 1 - h): a pair that is 1 apart in reward is left alone.

    >>> hinge(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([0.5000])
    """
    return (1 - responses.margin(beta)).relu()


def robust(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO, Chowdhury et al. 2024, arXiv 2403.00409: DPO without bias when a share e of the labels is flipped.

    L = ( -(1 - e) log sigmoid(h) + e log sigmoid(-h) ) / (1 - 2e), with e = ``label_smoothing`` in [0, 0.5).
    Equal to ``sigmoid`` at e = 0. Unlike ``sigmoid`` it has no lower bound.

    >>> robust(_PAIR, beta=0.1, label_smoothing=0.1)
    tensor([0.4116])
    """
    margin = responses.margin(beta)
    kept, flipped = (1 - label_smoothing) * -logsigmoid(margin), label_smoothing * -logsigmoid(-margin)
    return (kept - flipped) / (1 - 2 * label_smoothing)


def bco_pair(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Binary classifier optimisation, Jung et al. 2024, arXiv 2404.04656, on pairs: chosen is true, rejected is false.

    L = -log sigmoid(r_w) - log sigmoid(-r_l). As in TRL, without the paper's moving reward shift.

    >>> bco_pair(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([1.1525])
    """
    chosen, rejected = responses.rewards(beta)
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def apo_zero(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Anchored preference optimisation, D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7: chosen up, rejected down.

    L = 1 - sigmoid(r_w) + sigmoid(r_l). For chosen responses that are better than the model's own.

    >>> apo_zero(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([0.8757])
    """
    chosen, rejected = responses.rewards(beta)
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Anchored preference optimisation, arXiv 2408.06266, eq. 8: both down, the rejected response further.

    L = sigmoid(r_w) + 1 - sigmoid(h). For chosen responses that are worse than the model's own.

    >>> apo_down(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([0.9274])
    """
    chosen, rejected = responses.rewards(beta)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


def sft(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Negative log-likelihood of the chosen response, without a reference; the third loss of MPO.

    L = -log pi(y_w|m,q) / (mean tokens of a chosen response), so the mean over the pairs of a step is the mean over all
    chosen tokens of it. TRL takes that mean per micro-batch: equal for one micro-batch per step.

    >>> sft(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([2.])
    """
    return -responses.chosen / responses.mean_chosen_tokens


def sigmoid_norm(responses: Responses, beta: float, label_smoothing: float) -> Tensor:
    """Length-normalised DPO, as used by Tulu 3, Lambert et al. 2024, arXiv 2411.15124: L = -log sigmoid(beta h').

    h' is the difference of log-ratios per token, as in ``ipo``; it is smaller than h by the length of a response, so
    beta has to be larger.

    >>> sigmoid_norm(_PAIR, beta=0.1, label_smoothing=0.0)
    tensor([0.6444])
    """
    return -logsigmoid(beta * responses.margin_per_token())


#: (responses, beta, label_smoothing) -> [B]
Loss = Callable[[Responses, float, float], Tensor]

LOSSES: Mapping[str, Loss] = {
    "sigmoid": sigmoid,
    "ipo": ipo,
    "hinge": hinge,
    "robust": robust,
    "bco_pair": bco_pair,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "sft": sft,
    "sigmoid_norm": sigmoid_norm,
}


def preference(
    responses: Responses,
    loss_type: Sequence[str],
    loss_weights: Sequence[float] | None,
    beta: float,
    label_smoothing: float = 0.0,
    losses: Mapping[str, Loss] = LOSSES,
) -> Tensor:
    """The weighted sum of ``losses``; ``None`` weighs all 1. Raises ``ValueError`` unless there is a weight for each.

    MPO, Wang et al. 2024, arXiv 2411.10442, is sigmoid, bco_pair and sft with 0.8, 0.2 and 1:

    >>> preference(_PAIR, ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0], beta=0.1)
    tensor([2.6098])
    """
    weights = loss_weights if loss_weights is not None else [1.0] * len(loss_type)
    terms = [
        weight * losses[name](responses, beta, label_smoothing) for name, weight in zip(loss_type, weights, strict=True)
    ]
    return sum(terms[1:], start=terms[0])


def image_term(chosen: Tensor, corrupted: Tensor) -> Tensor:
    """Conditional preference of mDPO, Wang et al. 2024, arXiv 2406.11839, section 3: the answer must need the image.

    L_CoPO = -log sigmoid( r(m_w, q, y_w) - r(m_l, q, y_w) ) of the rewards of the chosen response next to its image and
    next to the corrupted one.

    It is a useful term but no instance of DPO: a reward is only known up to beta * log Z(m, q), which cancels between
    two responses to one image and not between two images (SymMPO, arXiv 2506.11712). Where every image has a similar
    one with a good answer of its own, ``symmetric_term`` asks for the same and compares responses only.

    >>> image_term(Tensor([0.2]), Tensor([-0.05]))
    tensor([0.5759])
    """
    return -logsigmoid(chosen - corrupted)


def anchor_term(chosen: Tensor, delta: float = 0.0) -> Tensor:
    """Anchor of mDPO, arXiv 2406.11839, section 3: a good response must not lose likelihood.

    L_AncPO = -log sigmoid( r - delta ); the paper has delta = 0.

    >>> anchor_term(Tensor([0.2]))
    tensor([0.5981])
    """
    return -logsigmoid(chosen - delta)


def lower_anchor_term(rejected: Tensor, delta: float = 0.0) -> Tensor:
    """The same from above, for the rejected response or the corrupted image (mDPO's ablation of anchors).

    L = -log sigmoid( delta - r ).

    >>> lower_anchor_term(Tensor([0.2]))
    tensor([0.7981])
    """
    return -logsigmoid(delta - rejected)


def symmetric_term(margin: Tensor, similar_margin: Tensor) -> Tensor:
    """Symmetric preference of SymMPO, Liu et al. 2025, arXiv 2506.11712: each image prefers its own answer.

    L = -log sigmoid(D1) - log sigmoid(D2). With the image m and its good answer y_w, a similar image m' and its good
    answer y': ``margin`` D1 = r(m, y_w) - r(m, y'), ``similar_margin`` D2 = r(m', y') - r(m', y_w). Both compare two
    responses to one image, so the partition functions cancel. The paper weighs it 0.5.

    >>> symmetric_term(Tensor([0.5]), Tensor([0.25]))
    tensor([1.0500])
    """
    return -logsigmoid(margin) - logsigmoid(similar_margin)


def margin_term(margin: Tensor, similar_margin: Tensor, beta: float) -> Tensor:
    """Margin consistency of SymMPO, arXiv 2506.11712: L = ( (D1 - D2) / beta )^2, margins as in ``symmetric_term``.

    Divided by beta because the authors square log-ratios, not rewards (``muffin/train/trainers.py`` of their
    repository), and their weight of 1e-4 is meant for that scale.

    >>> margin_term(Tensor([0.5]), Tensor([0.25]), beta=0.1)
    tensor([6.2500])
    """
    return ((margin - similar_margin) / beta) ** 2
