"""Where negatives come from. Each sampler returns rows and the log of how often each is expected among them (logQ).

The law: E[Σ_j exp(s_j − logq_j)] = Σ over the catalogue of exp(s), whatever the scores. For in-batch negatives the sum
is over the items that any training example has, since no other can come.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zhiyin.errors import SpecError
from zhiyin.learning.base import Catalogue, Negatives, NegativeSampler


@dataclass(frozen=True, slots=True)
class InBatch:
    """The batch's own positives are each other's negatives (Yi et al. 2019): expected n·p(y) times each."""

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        logp = _log(catalogue.frequencies)

        def draw(positives: Tensor, generator: torch.Generator) -> Negatives:
            logq = logp[positives] + _log_of(len(positives))
            return Negatives(positives, logq, logq)

        return draw


@dataclass(frozen=True, slots=True)
class Uniform:
    """`count` items, each as likely as any other: expected count / m times each."""

    count: int = 512

    def __post_init__(self) -> None:
        _check_count(self.count)

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        def draw(positives: Tensor, generator: torch.Generator) -> Negatives:
            rows = torch.randint(catalogue.size, (self.count,), generator=generator, device=positives.device)
            logq = torch.full((), _log_of(self.count) - _log_of(catalogue.size), device=positives.device)
            return Negatives(rows, logq.expand(self.count), logq.expand(len(positives)))

        return draw


@dataclass(frozen=True, slots=True)
class Popularity:
    """`count` items with p(y) ∝ frequency^`power`, drawn with replacement; `floor` of the draws go to all items alike,
    so that items no example has can be negatives too."""

    count: int = 512
    power: float = 0.75
    floor: float = 0.01

    def __post_init__(self) -> None:
        _check_count(self.count)
        if self.power < 0 or not 0 < self.floor <= 1:
            raise SpecError(f"power = {self.power}, floor = {self.floor}", expected="power ≥ 0 and 0 < floor ≤ 1")

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        weights = torch.where(catalogue.frequencies > 0, catalogue.frequencies.double() ** self.power, 0)
        probabilities = (1 - self.floor) * weights / weights.sum() + self.floor / catalogue.size
        upto = probabilities.cumsum(0)
        logq_of = (probabilities * self.count).log().float()

        def draw(positives: Tensor, generator: torch.Generator) -> Negatives:
            drawn = torch.rand(self.count, generator=generator, device=positives.device, dtype=torch.float64)
            rows = torch.searchsorted(upto, drawn * upto[-1]).clamp(max=catalogue.size - 1)
            return Negatives(rows, logq_of[rows], logq_of[positives])

        return draw


@dataclass(frozen=True, slots=True)
class Mixed:
    """The batch's positives and `uniform` items besides (Yang et al. 2020, "Mixed Negative Sampling"): expected
    n·p(y) + uniform / m times each."""

    uniform: int = 512

    def __post_init__(self) -> None:
        _check_count(self.uniform, "uniform")

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        def draw(positives: Tensor, generator: torch.Generator) -> Negatives:
            device = positives.device
            rows = torch.cat(
                [positives, torch.randint(catalogue.size, (self.uniform,), generator=generator, device=device)]
            )
            logq = torch.log(catalogue.frequencies[rows] * len(positives) + self.uniform / catalogue.size)
            return Negatives(rows, logq, logq[: len(positives)])

        return draw


@dataclass(frozen=True, slots=True)
class WholeCatalogue:
    """Every item, once: nothing is sampled, logQ is 0. For catalogues that fit a batch's scores."""

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        rows = torch.arange(catalogue.size, device=catalogue.frequencies.device)
        nothing = torch.zeros((), device=rows.device)

        def draw(positives: Tensor, generator: torch.Generator) -> Negatives:
            return Negatives(rows, nothing.expand(catalogue.size), nothing.expand(len(positives)))

        return draw


def _check_count(count: int, name: str = "count") -> None:
    if count < 1:
        raise SpecError(f"{count}", where=f".{name}", expected="at least 1")


def _log(frequencies: Tensor) -> Tensor:
    return frequencies.clamp(min=torch.finfo(torch.float32).tiny).log()


def _log_of(count: int) -> float:
    return float(torch.tensor(float(count)).log())


EXAMPLES = (InBatch(), Uniform(64), Popularity(64), Mixed(32), WholeCatalogue())
