"""What learning passes around: a batch, its negatives, their scores."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zhiyin.models.base import Queries


@dataclass(frozen=True, slots=True)
class Batch:
    """n training examples: what the user tower sees, the item row that was chosen, int64 [n], and the example's reward
    weight, float32 [n]."""

    queries: Queries
    positives: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Negatives:
    """`rows` int64 [m] sampled item rows, one set for the whole batch; `logq` float32 [m] the log of how often each is
    expected among them (its expected count); `positive_logq` float32 [n] the same for each example's positive.

    Every sampler obeys E[Σ_j exp(s_j − logq_j)] = Σ over the catalogue of exp(s).
    """

    rows: Tensor
    logq: Tensor
    positive_logq: Tensor


class NegativeSampler(Protocol):
    """Draws negatives for a batch."""

    def __call__(self, positives: Tensor, generator: torch.Generator) -> Negatives:
        """Negatives for a batch whose positives are the rows int64 [n]."""
        ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a sampler may know: the size of the catalogue, and how often each row is expected among one batch's examples
    divided by the batch size, float32 [m], sums to 1 (the caps on examples per user taken into account)."""

    size: int
    frequencies: Tensor


class NegativesSpec(Protocol):
    """A sampler's parameters."""

    def build(self, catalogue: Catalogue) -> NegativeSampler: ...


@dataclass(frozen=True, slots=True)
class Scores:
    """`positive` [n], `negative` [n, m] inner products; `positive_logq` [n], `negative_logq` [m];
    `accidental` bool [n, m]: where a negative is the example's own positive, and so is none."""

    positive: Tensor
    negative: Tensor
    positive_logq: Tensor
    negative_logq: Tensor
    accidental: Tensor


class Loss(Protocol):
    """A spec that is also the function: scores in, one loss per example, float32 [n], out."""

    @property
    def whole_catalogue(self) -> bool:
        """Whether it needs every item of the catalogue as a negative, each once."""
        ...

    def __call__(self, scores: Scores) -> Tensor: ...
