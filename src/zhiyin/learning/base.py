"""What learning passes around: the positives of a step, their negatives, a batch, its scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.indexes.base import Vectors
from zhiyin.models.base import Runs
from zhiyin.products import product, summed

LOWEST = -1e30
"""The score of what is not there, where −inf would not do."""

SMALL = 40.0
"""exp(±40), and a million times that, are far from the ends of float32."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Positives:
    """The n training examples of a step, before any tensor is made: their event numbers, users and item rows."""

    events: Events
    users: Numbers
    rows: Numbers

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Negatives:
    """`rows` int64 [m] sampled item rows, one set for the whole batch; `logq` float32 [m] the log of how often each is
    expected among them (its expected count); `positive_logq` float32 [n] the same for each example's positive.

    `owners` int64 [m]: whose own positive a row is, if anybody's (`UNKNOWN`): it is no negative of that user's.
    `own` int64 [n, q]: hard negatives of each example alone, `UNKNOWN` where it has fewer; they come on top of the
    others, uncorrected. Every sampler obeys E[Σ_j exp(s_j − logq_j)] = Σ over the catalogue of exp(s) with what all
    examples share.
    """

    rows: Numbers
    logq: Floats
    positive_logq: Floats
    owners: Numbers | None = None
    own: Numbers | None = None


class NegativeSampler(Protocol):
    """Draws negatives for a batch, on the CPU, ahead of the step that needs them: once for every step, in order."""

    def __call__(self, positives: Positives, step: int, random: np.random.Generator) -> Negatives:
        """Negatives for the batch of step `step`, counted from 0. `random` is the only chance."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A sampler with something that a checkpoint must keep."""

    def state(self) -> dict[str, NDArray[Any]]: ...

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state` gave."""
        ...


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a sampler may know: the size of the catalogue, how often each row is expected among one batch's examples
    divided by the batch size, float32 [m], sums to 1 (the caps on examples per user taken into account), and the batch
    size. `data`: what is learned from, and `train` which events of it. `vectors`: the vectors that these item rows have
    now, [·, d], for a sampler that mines them."""

    size: int
    frequencies: Floats
    batch_size: int = 512
    data: Prepared | None = None
    train: Events | None = None
    vectors: Callable[[Numbers], Vectors] | None = None


class NegativesSpec(Protocol):
    """A sampler's parameters."""

    @property
    def remembers(self) -> int:
        """How many earlier steps a draw depends on: a run that resumes draws them again."""
        ...

    @property
    def mines(self) -> bool:
        """Whether it asks for item vectors, which are those of the moment only when nothing runs ahead."""
        ...

    def size(self, batch_size: int, catalogue_size: int) -> int:
        """How many negatives an example has in a step."""
        ...

    def build(self, catalogue: Catalogue) -> NegativeSampler: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's n examples on the device.

    `runs`: what the user tower sees, in parts of like length, n requests in all. `rows` int64 [u]: the distinct items
    of the step; `positives` int64 [n], `negatives` int64 [m], `own` int64 [n, q] (or None): places among them.
    `weights` float32 [n]: the examples' rewards. `hits` int64 [2, a]: the pairs (example, negative) that are no
    negatives, by example; those of example i are the columns `hit_bounds`[i] … `hit_bounds`[i + 1] - 1 (int64 [n + 1],
    no tensor: nobody waits for it).
    """

    runs: tuple[Runs, ...]
    rows: Tensor
    positives: Tensor
    negatives: Tensor
    weights: Tensor
    positive_logq: Tensor
    negative_logq: Tensor
    hits: Tensor
    hit_bounds: Numbers
    own: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Users [n, d] against their positives [n, d] and the negatives [m, d] that all share.

    `interests` [n, h, d]: a negative's score is that of the best of them, where it is not that of `users`.
    `positive_logq` [n], `negative_logq` [m]; `hits` int64 [2, a]: the pairs (example, negative) that are none: an
    example's own positive, or another positive of its user's. `own` [n, q, d]: hard negatives of each example alone,
    those that are `own_real` bool [n, q]. `catalogue_size`: how many items there are.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    positive_logq: Tensor
    negative_logq: Tensor
    hits: Tensor
    own: Tensor | None = None
    own_real: Tensor | None = None
    catalogue_size: int = 0
    interests: Tensor | None = None

    @property
    def positive(self) -> Tensor:
        """[n] the positives' scores."""
        return (self.users * self.positives).sum(-1)

    @property
    def negative(self) -> Tensor:
        """[n, m + q] the negatives' scores, −inf for a pair that is none."""
        shared = self._shared().index_put(tuple(self.hits), self.users.new_tensor(-torch.inf))
        hard = self._hard()
        return shared if hard is None else torch.cat([shared, hard], dim=1)

    @property
    def real(self) -> Tensor:
        """[n] how many negatives each example has."""
        hit = self.hits[0]
        lost = hit.new_zeros(len(self.users)).index_add_(0, hit, torch.ones_like(hit))  # no bincount: that waits
        hard = 0 if self.own_real is None else self.own_real.sum(1)
        return (len(self.negatives) - lost + hard).to(self.users.dtype)

    def mean(self, logq: Tensor) -> Tensor:
        """[n] the mean score over the catalogue, as the shared negatives tell it: each counts 1 / exp(logq), [m]."""
        weights = torch.softmax(-logq, 0)
        return self.users @ (weights @ self.negatives) if self.interests is None else self._shared() @ weights

    def log_sum(self, logq: Tensor) -> Tensor:
        """[n] log Σ_j exp(s_j − logq_j), logq [m], and exp(s) of each own negative; −inf where an example has none.
        Keeps one [n, m] matrix and changes it in place, where autograd would keep three; with interests, also which one
        each best score came from, in bytes."""
        asked = self.users[:, None] if self.interests is None else self.interests
        total: Tensor = _LogSum.apply(asked, self.negatives, logq, self.hits)  # type: ignore[no-untyped-call]
        hard = self._hard()
        return total if hard is None else torch.logaddexp(total, hard.logsumexp(1))

    def _shared(self) -> Tensor:
        """[n, m] the shared negatives' scores, those that are none among them."""
        if self.interests is None:
            return self.users @ self.negatives.T
        return (self.interests @ self.negatives.T).amax(1)

    def _hard(self) -> Tensor | None:
        """[n, q] the own negatives' scores, next to −inf where there is none (a row of −inf has no gradient)."""
        if self.own is None or self.own_real is None:
            return None
        asked = self.users[:, None] if self.interests is None else self.interests
        return torch.einsum("nhd,nqd->nhq", asked, self.own).amax(1).masked_fill(~self.own_real, LOWEST)


class Loss(Protocol):
    """A spec that is also the function: scores in, one loss per example, float32 [n], out."""

    @property
    def whole_catalogue(self) -> bool:
        """Whether it needs every item of the catalogue as a negative, each once."""
        ...

    def __call__(self, scores: Scores) -> Tensor: ...


class _LogSum(torch.autograd.Function):
    """[n] the log of the sum over negatives [m, d] of exp(the best score of users [n, h, d] − logq [m])."""

    @staticmethod
    def forward(context: Any, users: Tensor, negatives: Tensor, logq: Tensor, hits: Tensor) -> Tensor:
        scores, best = product(users[:, 0], negatives.T), None
        for other in range(1, users.shape[1]):
            best = _better(best, other, scores, product(users[:, other], negatives.T))
        likely = logq.min()
        scores[tuple(hits)] = -torch.inf
        if _are_small(users, negatives, logq):
            counts, most = torch.exp(likely - logq), -likely
        else:
            counts = torch.ones_like(logq)
            most = scores.sub_(logq).amax(1).clamp(min=torch.finfo(scores.dtype).min)
            scores.sub_(most[:, None])
        total = scores.exp_() @ counts
        context.save_for_backward(users, negatives, scores, counts, total, best)
        return total.log().add_(most)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # a share is exponentials[i, j] · counts[j] / total[i]: what is i's or j's alone goes to the smaller matrices
        users, negatives, exponentials, counts, total, best = context.saved_tensors
        slopes = (gradient / total.clamp(min=torch.finfo(total.dtype).tiny))[:, None]
        counted, sloped = negatives * counts[:, None], users * slopes[:, None]
        of_users, of_negatives = torch.empty_like(users), torch.zeros_like(negatives)
        for one in range(users.shape[1]):
            mine = exponentials if best is None else exponentials * (best == one)
            of_users[:, one] = product(mine, counted).mul_(slopes)
            of_negatives += summed(mine, sloped[:, one])
        return of_users, of_negatives.mul_(counts[:, None]), None, None


def _better(best: Tensor | None, other: int, scores: Tensor, theirs: Tensor) -> Tensor:
    """Whose score is the best so far, uint8 like the scores, the earlier of two that are level; `scores` are that one's
    from then on."""
    won = theirs > scores
    torch.maximum(scores, theirs, out=scores)
    return won.to(torch.uint8) if best is None else best.masked_fill_(won, other)


def _are_small(users: Tensor, negatives: Tensor, logq: Tensor) -> bool:
    """Whether exp of every score, and every sum of them by their counts, is a float32 without a shift. On a GPU nobody
    waits for the answer: no."""
    if users.device.type != "cpu":
        return False
    largest = users.norm(dim=-1).amax() * negatives.norm(dim=1).amax()
    return bool(largest + (logq.max() - logq.min()) < SMALL)
