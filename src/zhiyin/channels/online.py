"""How requests are answered that do not say it themselves, and which channels there are: the recipe's `[online]`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from zhiyin.channels.base import Channel
from zhiyin.channels.deep import Deep
from zhiyin.channels.fresh import Fresh
from zhiyin.channels.item_to_item import ItemToItem
from zhiyin.channels.merge import RRF, Merge, Quota
from zhiyin.channels.popular import Popular
from zhiyin.errors import SpecError
from zhiyin.spec import Home, nearest

BUILT_IN: Mapping[str, Channel] = {
    "deep": Deep(),
    "popular": Popular(),
    "item_to_item": ItemToItem(),
    "fresh": Fresh(),
}
"""What can be asked for without a word in the recipe."""


@dataclass(frozen=True, slots=True)
class Online:
    """`ask`: the channels that a request gets which names none; `merge`: how several become one list; `cold`: the
    channel that answers in the place of one that knows nothing of the user; `deadline_ms`: what is later is left out,
    0 waits for all. `channels`: more of them by name, or others in the place of the built-in ones."""

    ask: tuple[str, ...] = ("deep",)
    merge: Annotated[Merge, Home("zhiyin.channels")] = RRF()
    cold: str = "popular"
    deadline_ms: float = 0.0
    channels: Mapping[str, Annotated[Channel, Home("zhiyin.channels")]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.channels:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise SpecError(f"{name!r}", where=".channels", expected="letters, digits, _ and -, at most 64")
        if not self.ask or len(set(self.ask)) < len(self.ask):
            raise SpecError(f"{list(self.ask)}", where=".ask", expected="channels, at least one, each once")
        for at, name in enumerate(self.ask):
            self.channel(name, f".ask[{at}]")
        self.channel(self.cold, ".cold")
        if isinstance(self.merge, Quota):
            for name in self.merge.shares:
                self.channel(name, ".merge.shares")
        if not 0 <= self.deadline_ms < math.inf:
            raise SpecError(f"{self.deadline_ms:g}", where=".deadline_ms", expected="milliseconds, at least 0")

    def channel(self, name: str, where: str = "") -> Channel:
        """The channel of that name. Raises `SpecError` where there is none."""
        found = self.channels.get(name) or BUILT_IN.get(name)
        if found is None:
            known = list({**BUILT_IN, **self.channels})
            raise SpecError(
                f"there is no channel {name!r}{nearest(name, known)}",
                where=where,
                expected=f"one of {', '.join(known)}",
            )
        return found


STANDARD = Online()
"""The towers alone, and what is popular for those of whom nothing is known."""
