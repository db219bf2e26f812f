"""The listed channel: items that somebody chose, such as those a newcomer is shown first."""

from collections.abc import Sequence
from dataclasses import dataclass

from zhiyin.channels.base import Found, Neighbourhoods, Seeker
from zhiyin.channels.orders import completed
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.release import Arrays, Release


@dataclass(frozen=True, slots=True)
class Listed:
    """These `items` in this order, then what is popular; the score is 1 / rank. One that the release does not know is
    passed over."""

    items: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.items or len(set(self.items)) < len(self.items):
            raise SpecError(
                "an item stands here twice" if self.items else "no items",
                where=".items",
                expected="item ids, each once",
            )

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        return {}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        return True

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        rows = release.items.rows(self.items)
        return [completed(release, rows[rows != UNKNOWN], seeker) for seeker in seekers]


EXAMPLES = (Listed(items=("i9", "i3", "no such item")),)
