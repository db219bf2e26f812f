"""What a backend tells so that its parameters can be found by measuring."""

from typing import Any, Protocol, Self

from zhiyin.indexes.base import Index, Vectors


class TunableIndex(Index, Protocol):
    """An index that can be searched in other ways without being built again."""

    def searched_with(self, settings: Any) -> Index:
        """The same index, searched as another spec of the same build says."""
        ...


class Tunable(Protocol):
    """A spec whose parameters fall in two: what is built, and how hard a search looks."""

    @classmethod
    def candidates(cls, size: int, dim: int, seed: int) -> tuple[Self, ...]:
        """Builds worth trying for `size` vectors; as many for every size, the i-th always of the same kind."""
        ...

    def ladders(self, size: int, k: int) -> tuple[tuple[Self, ...], ...]:
        """Ways to search what this spec builds of `size` vectors for their top k: in each ladder from the least effort
        to the most, so that overlap rises and speed falls."""
        ...

    def with_cells(self, size: int, ratio: float) -> Self | None:
        """The same kind of index with `ratio` times as many cells (or leaves); None where there are none, or that many
        would be too few or too many for `size` vectors."""
        ...

    def memory(self, size: int, dim: int) -> int:
        """About how many bytes its index holds, not counting the memory-mapped vectors."""
        ...

    def installed(self) -> bool:
        """Whether the package it needs is there."""
        ...

    def growth(self) -> float:
        """The power of a catalogue's size with which the time of a build grows."""
        ...

    def foretells(self) -> bool:
        """Whether that holds from a few thousand vectors on: not where learning codes and centres comes first."""
        ...

    def build(self, vectors: Vectors) -> TunableIndex: ...


RUNG = 1.03
"""How many times more effort a rung is than the one before: what is given away by taking whole rungs."""


def rungs(least: int, most: int, ratio: float = RUNG) -> tuple[int, ...]:
    """Whole numbers from `least` to `most`, each about `ratio` times the one before."""
    steps = [least]
    while steps[-1] < most:
        steps.append(min(most, max(steps[-1] + 1, round(steps[-1] * ratio))))
    return tuple(steps)
