"""Controllable diversity (Cen et al. 2020, "Controllable Multi-Interest Framework for Recommendation", section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import RequestError
from zhiyin.indexes.base import Vectors
from zhiyin.stores.base import Card

POOL = 4
"""A diverse answer is chosen among so many times as many candidates."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Wanted of one answer: `weight` (the paper's λ, in units of the score) for every two candidates whose cards differ
    in the field `by`. Raises `RequestError` for a weight that is negative or no number, and for no field."""

    weight: float
    by: str

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and np.isfinite(self.weight)):
            raise RequestError(f"{self.weight}", where=".weight", expected="a number of at least 0")
        if not self.by:
            raise RequestError("''", where=".by", expected="the name of a field of the items' cards")

    def places(self, scores: Sequence[float], cards: Sequence[Card | None], k: int) -> Rows:
        """Places of the chosen among candidates with these scores and cards, in the order they are chosen.

        Raises `RequestError` when no card has the field."""
        named = [None if card is None else card.get(self.by) for card in cards]
        if named and all(name is None for name in named):
            raise RequestError(
                f"no candidate's card has the field '{self.by}'",
                where=".by",
                remedy="Put cards with that field, or name another.",
            )
        numbers: dict[str, int] = {}
        codes = [UNKNOWN if name is None else numbers.setdefault(str(name), len(numbers)) for name in named]
        return diverse(np.array(scores, np.float32), np.array(codes, np.int32), k, self.weight)


def diverse(scores: Vectors, categories: Rows, k: int, weight: float) -> Rows:
    """[min(k, f)] places among f candidates, in the order they are chosen: greedily the one with the greatest
    score + weight · (how many of those already chosen are of another category).

    scores [f], larger is better; categories [f], `UNKNOWN` where an item has none: it differs from every other. Of
    equal candidates the first is chosen; weight 0 ranks by score.
    """
    # what all candidates gain alike changes nothing: those of a chosen category fall behind instead
    left = scores.astype(np.float64)
    chosen = np.empty(min(k, len(left)), np.int32)
    for turn in range(len(chosen)):
        best = int(left.argmax())
        chosen[turn] = best
        if categories[best] != UNKNOWN:
            left[categories == categories[best]] -= weight
        left[best] = -np.inf
    return chosen
