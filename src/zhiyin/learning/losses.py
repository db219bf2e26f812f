"""Losses: scores in, one number per example out.

s⁺ is the positive's score, s_j a negative's, q⁺ and q_j their expected counts among the negatives. A pair that is no
negative (the example's own positive, another one of its user's) takes part in none of them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zhiyin.errors import SpecError
from zhiyin.learning.base import Scores


@dataclass(frozen=True, slots=True)
class SampledSoftmax:
    """Yi et al. 2019, equations 3–5: −log of the softmax of s⁺ − log q⁺ over itself and every s_j − log q_j.

    Without `logq` popular items, which are drawn more often, are pushed down by as much: s is then learned less
    log q, and what is popular is retrieved too rarely. To compare with, hardly to use.
    `smoothing`: so much of the target is spread over the catalogue.
    """

    logq: bool = True
    smoothing: float = 0.0
    whole_catalogue: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def __call__(self, scores: Scores) -> Tensor:
        positive = scores.positive - scores.positive_logq if self.logq else scores.positive
        corrections = scores.negative_logq if self.logq else torch.zeros_like(scores.negative_logq)
        losses = _softmax(positive, scores.log_sum(corrections))
        return _smoothed(losses, positive, scores, self.smoothing) if self.smoothing else losses


@dataclass(frozen=True, slots=True)
class FullSoftmax:
    """−log softmax of s⁺ over the whole catalogue. Needs every item as a negative, once (`WholeCatalogue`).
    `smoothing`: so much of the target is spread over the catalogue."""

    smoothing: float = 0.0
    whole_catalogue: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def __call__(self, scores: Scores) -> Tensor:
        nothing = torch.zeros_like(scores.negative_logq)
        losses = _softmax(scores.positive, scores.log_sum(nothing))
        return _smoothed(losses, scores.positive, scores, self.smoothing) if self.smoothing else losses


@dataclass(frozen=True, slots=True)
class CorrectedLogQ:
    """Khrylchenko et al. 2025, "Correcting the LogQ Correction": the positive is not sampled, so it is not corrected.

    With q'_j = q_j / (C − q⁺), C the expected count of all negatives, and N the number that are left:
    L = −sg(1 − p̂⁺)·[s⁺ − log Σ_j exp(s_j − log q'_j)], p̂⁺ the positive's softmax over s⁺ and s_j − log q'_j − log N.
    """

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        left = torch.log((len(scores.negatives) - scores.positive_logq.exp()).clamp(min=1e-6))
        positive, negatives = scores.positive, scores.log_sum(scores.negative_logq) + left
        with torch.no_grad():
            chance = torch.sigmoid(positive - (negatives - scores.real.clamp(min=1).log()))
        return torch.where(torch.isneginf(negatives), 0.0, -(1 - chance) * (positive - negatives))


@dataclass(frozen=True, slots=True)
class BPR:
    """Rendle et al. 2009, "BPR: Bayesian Personalized Ranking": −log σ(s⁺ − s_j), the mean over the negatives."""

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        return F.softplus(scores.negative - scores.positive[:, None]).sum(1) / scores.real.clamp(min=1)


@dataclass(frozen=True, slots=True)
class GBCE:
    """Petrov & Macdonald 2023, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
    Sampling": −(β·log σ(s⁺) + Σ_j log(1 − σ(s_j))) / (k + 1) over the k negatives, where
    β = α(t(1 − 1/α) + 1/α) and α = k / (m − 1), m the size of the catalogue. `calibration` is t: 0 is BCE, 1 makes up
    for all of the sampling."""

    calibration: float = 0.75
    whole_catalogue: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.calibration <= 1:
            raise SpecError(f"{self.calibration}", where=".calibration", expected="0 to 1")

    def __call__(self, scores: Scores) -> Tensor:
        count = scores.real
        rate = (count / max(1, scores.catalogue_size - 1)).clamp(1e-9, 1)
        beta = rate * (self.calibration * (1 - 1 / rate) + 1 / rate)
        against = F.softplus(scores.negative).sum(1)
        return (beta * F.softplus(-scores.positive) + against) / (count + 1)


@dataclass(frozen=True, slots=True)
class BCE:
    """Kang & McAuley 2018, equation 6: −(log σ(s⁺) + Σ_j log(1 − σ(s_j))) / (k + 1) over the k negatives."""

    whole_catalogue: ClassVar[bool] = False

    def __call__(self, scores: Scores) -> Tensor:
        return (F.softplus(-scores.positive) + F.softplus(scores.negative).sum(1)) / (scores.real + 1)


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
        return F.relu(self.margin - scores.positive[:, None] + scores.negative).sum(1) / scores.real.clamp(min=1)


def _softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """[n] −log of exp(positive) / (exp(positive) + exp(negatives))."""
    return F.softplus(negatives - positive)


def _smoothed(losses: Tensor, positive: Tensor, scores: Scores, smoothing: float) -> Tensor:
    """[n] the softmax losses where so much of the target is not the positive but any item."""
    return losses + smoothing * (positive - scores.mean(scores.negative_logq))


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise SpecError(f"{smoothing}", where=".smoothing", expected="at least 0 and below 1")


EXAMPLES = (SampledSoftmax(), FullSoftmax(), CorrectedLogQ(), BPR(), GBCE(), BCE(), Hinge())
