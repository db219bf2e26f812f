"""Hard negatives: what was shown and not chosen, and what the towers find hardest to tell from the positive.

They come on top of a base sampler's negatives, each for one example alone, and are not corrected by logQ: how likely
they are drawn is not known, and that they are not random is their purpose (Huang et al. 2020, section 6.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.learning.base import Catalogue, Negatives, NegativeSampler, NegativesSpec, Numbers, Positives
from zhiyin.learning.negatives import Mixed
from zhiyin.spec import Home

Base = Annotated[NegativesSpec, Home("zhiyin.learning")]


@dataclass(frozen=True, slots=True)
class Impressions:
    """Items that were shown and not chosen. `column`: the event column with the ids of what was shown when the event
    happened (a list); `count` of them are drawn for each example, without what was chosen; on top of `base`."""

    mines: ClassVar[bool] = False

    base: Base = Mixed()
    column: str = "shown"
    count: int = 4

    def __post_init__(self) -> None:
        check_count(self.count)
        if self.base.mines:
            raise SpecError(
                f"{type(self.base).__name__} inside Impressions",
                where=".base",
                expected="the other way round",
                remedy='Set use = "hard:Mined" with base.use = "hard:Impressions".',
            )

    @property
    def remembers(self) -> int:
        return self.base.remembers

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return self.base.size(batch_size, catalogue_size) + self.count

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        """Raises `DataError` when the log has no such column, or no lists in it."""
        base, data = self.base.build(catalogue), known(catalogue)
        shown, offsets = _shown(data, self.column)

        def draw(positives: Positives, step: int, random: np.random.Generator) -> Negatives:
            starts, lengths = offsets[positives.events], np.diff(offsets)[positives.events]
            order = random.random((len(positives), max(1, int(lengths.max(initial=0)))))
            order[np.arange(order.shape[1]) >= lengths[:, None]] = np.inf
            places = np.argsort(order, axis=1)[:, : self.count]
            there = places < lengths[:, None]
            own = np.where(there, shown[np.where(there, starts[:, None] + places, 0)], UNKNOWN)
            return with_own(base(positives, step, random), positives, own)

        return draw


@dataclass(frozen=True, slots=True)
class Mined:
    """Items whose vectors are near the positive's, but not nearest (Huang et al. 2020: those at rank 101–500): of a
    random `pool` of items, whose vectors are looked up every `every` steps, `count` are drawn for each example from
    those at rank `skip` … `skip` + `width` by inner product; on top of `base`. What the user has chosen in training is
    left out."""

    mines: ClassVar[bool] = True

    base: Base = Mixed()
    count: int = 2
    every: int = 100
    pool: int = 8192
    skip: int = 10
    width: int = 100

    def __post_init__(self) -> None:
        for name in ("count", "every", "pool", "width"):
            check_count(getattr(self, name), name)
        if self.skip < 0:
            raise SpecError(f"{self.skip}", where=".skip", expected="at least 0")

    @property
    def remembers(self) -> int:
        return self.base.remembers

    def size(self, batch_size: int, catalogue_size: int) -> int:
        return self.base.size(batch_size, catalogue_size) + self.count

    def build(self, catalogue: Catalogue) -> NegativeSampler:
        return MinedSampler(self, catalogue)


class MinedSampler:
    """Keeps the pool and its vectors between two looks."""

    def __init__(self, spec: Mined, catalogue: Catalogue) -> None:
        if catalogue.vectors is None:
            raise SpecError("negatives are mined from item vectors, and there are none", where="negatives")
        self._spec, self._look, self._size = spec, catalogue.vectors, catalogue.size
        self._base = spec.base.build(catalogue)
        self._chosen = _pairs_of(known(catalogue), catalogue)
        self._pool: Numbers = np.zeros(0, np.int64)
        self._vectors: Vectors = np.zeros((0, 0), np.float32)

    def __call__(self, positives: Positives, step: int, random: np.random.Generator) -> Negatives:
        if step % self._spec.every == 0 or not len(self._pool):
            self._pool = np.sort(random.permutation(self._size)[: self._spec.pool])
            self._vectors = self._look(self._pool)
        own = self._near(positives, random)
        own[self._was_chosen(positives.users, own)] = UNKNOWN
        return with_own(self._base(positives, step, random), positives, own)

    def state(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint must keep."""
        return {"pool": self._pool, "vectors": self._vectors}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state` gave."""
        self._pool, self._vectors = state["pool"], state["vectors"]

    def _near(self, positives: Positives, random: np.random.Generator) -> Numbers:
        spec = self._spec
        rows, places = np.unique(positives.rows, return_inverse=True)
        scores = self._look(rows) @ self._vectors.T
        reach = min(spec.skip + spec.width, len(self._pool))
        nearest = np.argpartition(-scores, reach - 1, axis=1)[:, :reach]
        nearest = np.take_along_axis(nearest, np.argsort(-np.take_along_axis(scores, nearest, 1), 1, kind="stable"), 1)
        first = min(spec.skip, reach - 1)
        drawn = random.integers(first, reach, size=(len(positives), spec.count))
        return self._pool[nearest[places[:, None], drawn]]

    def _was_chosen(self, users: Numbers, own: Numbers) -> np.ndarray:
        keys = users[:, None] * self._size + own
        at = np.minimum(np.searchsorted(self._chosen, keys), len(self._chosen) - 1)
        found: np.ndarray = self._chosen[at] == keys
        return found


def known(catalogue: Catalogue) -> Prepared:
    """The catalogue's data. Raises `SpecError` where none is known."""
    if catalogue.data is None:
        raise SpecError("hard negatives need the log they come from", where="negatives")
    return catalogue.data


def with_own(drawn: Negatives, positives: Positives, own: Numbers) -> Negatives:
    """The base's negatives, and these on top; a positive is not its own negative."""
    own = np.where(own == positives.rows[:, None], UNKNOWN, own)
    both = own if drawn.own is None else np.concatenate([drawn.own, own], axis=1)
    return Negatives(drawn.rows, drawn.logq, drawn.positive_logq, drawn.owners, both)


def check_count(count: int, name: str = "count") -> None:
    """Raises `SpecError` for a count below 1."""
    if count < 1:
        raise SpecError(f"{count}", where=f".{name}", expected="at least 1")


def _shown(data: Prepared, column: str) -> tuple[Numbers, Numbers]:
    """[s] the rows shown, event after event, those of event e from offsets[e] to offsets[e + 1]; no unknown ids."""
    if column not in data.events.columns:
        there = ", ".join(data.events.columns) or "none: add it to data.columns and prepare again"
        raise DataError(f"there is no event column '{column}'", where="negatives.column", expected=f"one of {there}")
    lists = data.events.columns[column]
    if any(shown is not None and not isinstance(shown, list | tuple | np.ndarray) for shown in lists):
        raise DataError(f"'{column}' does not hold lists", where="negatives.column", expected="the ids that were shown")
    flat = [str(one) for shown in lists if shown is not None for one in shown]
    distinct = list(dict.fromkeys(flat))
    rows_of = dict(zip(distinct, data.items.rows(distinct).tolist(), strict=True))
    found, offsets = [], np.zeros(len(lists) + 1, np.int64)
    for event, shown in enumerate(lists):
        found += [row for one in (() if shown is None else shown) if (row := rows_of[str(one)]) != UNKNOWN]
        offsets[event + 1] = len(found)
    return np.array([*found, UNKNOWN], np.int64), offsets


def _pairs_of(data: Prepared, catalogue: Catalogue) -> Numbers:
    """[p] user · m + item of every training example, ascending."""
    events = np.arange(len(data.events)) if catalogue.train is None else catalogue.train
    return np.unique(data.events.users[events].astype(np.int64) * catalogue.size + data.events.items[events])


EXAMPLES = (Impressions(Mixed(32)), Mined(Mixed(32), every=5, pool=40, skip=2, width=10))
