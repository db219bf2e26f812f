"""What a store keeps: users' profiles and latest events, items' cards. External ids only: it outlives every release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Profile = Mapping[str, Any]
"""What is known of a user, by column name: plain JSON values."""

Card = Mapping[str, Any]
"""What a ranker or a page shows of an item (title, cover, …), by name: plain JSON values."""


@dataclass(frozen=True, slots=True)
class Event:
    """`user` did something with `item` at `time` (milliseconds since 1970). `values`: what else is known of it.

    `id` names the event, so that one sent twice counts once; an event without one is told by user, item and time.
    """

    user: str
    item: str
    time: int
    values: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of `item` at `time` (milliseconds since 1970): it was put, `values` being its columns in an item
    table (plain JSON values), or deleted: `values` is None.

    Or, where `blocked` is not None, it was blocked (True) or no longer is (False), and has no values: a block is apart
    from whether the item is there, and holds whatever is put or deleted.

    `number`: its place among all changes of a store, given by the store when it is kept: above all that were given
    before, and above 0.
    """

    item: str
    time: int
    values: Mapping[str, Any] | None
    number: int = 0
    blocked: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`changes` that were read on from some number, by number. `pruned`: the highest number that was ever pruned, 0
    where none was: who had not yet read so far may have missed it, and reads anew from 0."""

    changes: tuple[Change, ...]
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class UserState:
    """One user, read at once. `profile` is None where none was put; `events` are oldest first, in time order (events of
    equal time in order of arrival)."""

    profile: Profile | None
    events: tuple[Event, ...]

    @property
    def known(self) -> bool:
        """Whether the store has ever heard of this user."""
        return self.profile is not None or bool(self.events)


class UserStore(Protocol):
    """Profiles and recent events. Safe from many threads; every write is whole or not at all, and durable on return."""

    def append(self, events: Sequence[Event]) -> int:
        """Keep these events, one after another, each in its place by time (after those of its own time).

        One that is kept already is not kept twice; when a user has more than the store's `keep`, the oldest is dropped,
        and an event older than all of a full history is not kept. Returns how many were kept. Raises `RequestError`
        for an event that no store can hold, and keeps none of them then."""
        ...

    def read(self, users: Sequence[str], limit: int) -> list[UserState]:
        """Profile and the newest `limit` events of each user, in one round trip. An unknown user has neither."""
        ...

    def put_profiles(self, profiles: Mapping[str, Profile]) -> None:
        """Set profiles, each replaced whole."""
        ...


class ItemStore(Protocol):
    """Item cards, and a log of items that were put or deleted. Safe from many threads; durable on return."""

    def cards(self, items: Sequence[str], fields: Sequence[str] | None = None) -> list[Card | None]:
        """Each item's card, None where none was put, in one round trip. `fields`: which of the cards' fields are
        wanted (one that a card has not is left out); None: all."""
        ...

    def put_cards(self, cards: Mapping[str, Card]) -> None:
        """Set cards, each replaced whole."""
        ...

    def drop_cards(self, items: Sequence[str]) -> None:
        """Forget these items' cards; those without one are passed over."""
        ...

    def put_changes(self, changes: Sequence[Change]) -> None:
        """Keep these changes, numbered in their order; all or none. Of an item the log keeps the last put or deletion,
        and the last block or unblock.

        Raises `RequestError` for a change that no store can hold, and keeps none of them then."""
        ...

    def changes(self, after: int, limit: int) -> Page:
        """The first `limit` changes that are kept with numbers above `after`, and what was pruned by then. Who has seen
        number n and asks for what came after it misses nothing, unless n is below `Page.pruned`: a number is never seen
        before a lower one."""
        ...

    def prune_changes(self, changes: Sequence[Change]) -> int:
        """Forget these changes, as they were read; all or none. One whose item was changed again since is passed over.
        No number of theirs is given again. Returns how many went."""
        ...


class Store(UserStore, ItemStore, Protocol):
    """Both halves in one backend."""

    def close(self) -> None:
        """Let go of files and connections; closing twice is harmless."""
        ...


class StoreSpec(Protocol):
    """A backend and its parameters."""

    @property
    def keep(self) -> int:
        """The newest events that a user keeps."""
        ...

    def open(self) -> Store:
        """Raises `StoreError` where it cannot be opened: what, where, the way out."""
        ...
