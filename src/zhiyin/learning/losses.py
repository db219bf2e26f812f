"""Losses: scores in, one number per example out.

s⁺ is the positive's score, s_j a negative's, q⁺ and q_j their expected counts among the negatives. An example's own
positive among the negatives (an accidental hit) takes part in none of them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zhiyin.errors import SpecError
from zhiyin.learning.base import Negatives, Scores


def score(users: Tensor, positives: Tensor, negatives: Tensor, rows: Tensor, drawn: Negatives) -> Scores:
    """Scores of users [n, d] against their positives [n, d], of rows int64 [n], and the drawn negatives [m, d]."""
    return Scores(
        positive=(users * positives).sum(-1),
        negative=users @ negatives.T,
        positive_logq=drawn.positive_logq,
        negative_logq=drawn.logq,
        accidental=rows[:, None] == drawn.rows,
    )


@dataclass(frozen=True, slots=True)
class SampledSoftmax:
    """Yi et al. 2019, equations 3–5: −log of the softmax of s⁺ − log q⁺ over itself and every s_j − log q_j."""

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        positive = scores.positive - scores.positive_logq
        return torch.logaddexp(positive, _log_sum(scores, scores.negative_logq)) - positive


@dataclass(frozen=True, slots=True)
class FullSoftmax:
    """−log softmax of s⁺ over the whole catalogue. Needs every item as a negative, once (`WholeCatalogue`)."""

    whole_catalogue: ClassVar[bool] = True

    def __call__(self, scores: Scores) -> Tensor:
        return (
            torch.logaddexp(scores.positive, _log_sum(scores, torch.zeros_like(scores.negative_logq))) - scores.positive
        )


@dataclass(frozen=True, slots=True)
class CorrectedLogQ:
    """Khrylchenko et al. 2025, "Correcting the LogQ Correction": the positive is not sampled, so it is not corrected.

    With q'_j = q_j / (C − q⁺), C the expected count of all negatives, and N the number that are left:
    L = −sg(1 − p̂⁺)·[s⁺ − log Σ_j exp(s_j − log q'_j)], p̂⁺ the positive's softmax over s⁺ and s_j − log q'_j − log N.
    """

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        total = float(scores.negative.shape[1])
        left = torch.log((total - scores.positive_logq.exp()).clamp(min=1e-6))
        negatives = _log_sum(scores, scores.negative_logq) + left
        real = (~scores.accidental).sum(1).clamp(min=1).to(negatives.dtype)
        with torch.no_grad():
            chance = torch.sigmoid(scores.positive - (negatives - real.log()))
        return torch.where(torch.isneginf(negatives), 0.0, -(1 - chance) * (scores.positive - negatives))


@dataclass(frozen=True, slots=True)
class BPR:
    """Rendle et al. 2009, "BPR: Bayesian Personalized Ranking": −log σ(s⁺ − s_j), the mean over the negatives."""

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        return _mean(F.softplus(scores.negative - scores.positive[:, None]), scores)


@dataclass(frozen=True, slots=True)
class Hinge:
    """Huang et al. 2020, "Embedding-based Retrieval in Facebook Search", section 2.2: max(0, `margin` − s⁺ + s_j), the
    mean over the negatives."""

    margin: float = 0.1
    whole_catalogue: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise SpecError(f"{self.margin}", where=".margin", expected="a number above 0")

    def __call__(self, scores: Scores) -> Tensor:
        return _mean(F.relu(self.margin - scores.positive[:, None] + scores.negative), scores)


def _log_sum(scores: Scores, logq: Tensor) -> Tensor:
    """[n] log Σ_j exp(s_j − logq_j) without accidental hits; −inf where none is left."""
    corrected = (scores.negative - logq).masked_fill(scores.accidental, -torch.inf)
    return torch.logsumexp(corrected, dim=1)


def _mean(losses: Tensor, scores: Scores) -> Tensor:
    """[n] the mean over the negatives that are real; 0 where none is."""
    real = ~scores.accidental
    return losses.where(real, losses.new_zeros(())).sum(1) / real.sum(1).clamp(min=1)


EXAMPLES = (SampledSoftmax(), FullSoftmax(), CorrectedLogQ(), BPR(), Hinge())
