"""Every store against a plain model, in any order of any calls."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from zhiyin import spec
from zhiyin.stores.base import Change, Event, Store, StoreSpec, UserState
from zhiyin.stores.memory import Memory

IDS = ["u", "*", "\r\n", "{}", "知", "u" * 600, "\x00", "v"]
ids = st.sampled_from(IDS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.dictionaries(st.sampled_from("ab"), plain | st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
events = st.builds(
    Event,
    st.sampled_from(IDS[:3]),
    st.sampled_from(["i", "j", "\r\n"]),
    st.integers(0, 6) | st.sampled_from([-(2**63), 2**63 - 1]),
    values,
    st.sampled_from(["", "", "", "e1", "e2"]),
)
moments = st.sampled_from([0, -(2**63), 2**63 - 1])
blocks = st.builds(Change, ids, moments, st.none(), blocked=st.booleans())
changes = st.builds(Change, ids, moments, st.none() | values) | blocks
KEEP = 4

Key = tuple[str, bool]


def key(change: Change) -> Key:
    """Of an item's puts and deletions the last is kept, and of its blocks."""
    return change.item, change.blocked is None


class Plain:
    """A store in the plainest words: each user's events in order of arrival, put in order when they are read."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.changes: list[Change] = []

    def append(self, event: Event) -> int:
        kept = self.events.setdefault(event.user, [])
        if any(self.same(event, one) for one in kept):
            return 0
        ordered = sorted([*kept, event], key=lambda one: one.time)[-KEEP:]
        if not any(event is one for one in ordered):
            return 0
        self.events[event.user] = [one for one in [*kept, event] if any(one is other for other in ordered)]
        return 1

    def same(self, one: Event, other: Event) -> bool:
        if one.id or other.id:
            return one.id == other.id
        return (one.item, one.time) == (other.item, other.time)

    def state(self, user: str, limit: int) -> UserState:
        ordered = sorted(self.events.get(user, []), key=lambda one: one.time)
        return UserState(self.profiles.get(user), tuple(ordered[len(ordered) - min(limit, len(ordered)) :]))


class Follower:
    """Who reads the log of changes on, as a replica does: the last change of each item, the absorbed ones to begin
    with."""

    def __init__(self) -> None:
        self.number = self.pruned = 0
        self.known: dict[Key, Change] = {}

    def read(self, store: Store, absorbed: dict[Key, Change], pages: int) -> None:
        for _ in range(pages):
            page = store.changes(self.number, 2)
            if page.pruned > max(self.number, self.pruned):
                self.number, self.pruned, self.known = 0, page.pruned, dict(absorbed)
                continue
            for change in page.changes:
                self.number = change.number
                self.known[key(change)] = replace(change, number=0)


class StoreMachine(RuleBasedStateMachine):
    """Every call to the store is also made to the model, and both say the same."""

    example: StoreSpec
    placed: Callable[[StoreSpec, Path], StoreSpec]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.spec: StoreSpec = type(self).placed(replace(cast(Any, self.example), keep=KEEP), self.folder)
        self.store: Store = self.spec.open()
        self.model = Plain()
        self.truth: dict[Key, Change] = {}
        self.absorbed: dict[Key, Change] = {}
        self.followers = [Follower(), Follower()]

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(batch=st.lists(events, max_size=7))
    def append(self, batch: list[Event]) -> None:
        assert self.store.append(batch) == sum(self.model.append(event) for event in batch)

    @rule(profiles=st.dictionaries(ids, values, max_size=3))
    def put_profiles(self, profiles: dict[str, dict[str, Any]]) -> None:
        self.store.put_profiles(profiles)
        self.model.profiles |= profiles

    @rule(cards=st.dictionaries(ids, values, max_size=3))
    def put_cards(self, cards: dict[str, dict[str, Any]]) -> None:
        self.store.put_cards(cards)
        self.model.cards |= cards

    @rule(items=st.lists(ids, max_size=3))
    def drop_cards(self, items: list[str]) -> None:
        self.store.drop_cards(items)
        self.model.cards = {item: card for item, card in self.model.cards.items() if item not in items}

    @rule(batch=st.lists(changes, max_size=4))
    def put_changes(self, batch: list[Change]) -> None:
        self.store.put_changes(batch)
        for change in batch:
            self.model.changes = [kept for kept in self.model.changes if key(kept) != key(change)] + [change]
            self.truth[key(change)] = change

    @rule(seen=st.integers(0, 6), limit=st.integers(0, 5))
    def read_changes(self, seen: int, limit: int) -> None:
        """On from any place where a reader may stand."""
        all = self.store.changes(0, 100).changes
        seen = min(seen, len(all))
        page = self.store.changes(all[seen - 1].number if seen else 0, limit)
        assert page.changes == all[seen : seen + limit]

    @rule(chosen=st.sets(st.integers(0, 6)))
    def prune(self, chosen: set[int]) -> None:
        """What goes, a new release has absorbed."""
        gone = [change for at, change in enumerate(self.store.changes(0, 100).changes) if at in chosen]
        assert self.store.prune_changes(gone) == len(gone)
        keys = {key(change) for change in gone}
        self.model.changes = [change for change in self.model.changes if key(change) not in keys]
        self.absorbed |= {one: self.truth[one] for one in keys}
        assert self.store.prune_changes(gone) == 0

    @rule(follower=st.integers(0, 1), pages=st.integers(1, 3))
    def follow(self, follower: int, pages: int) -> None:
        """As a replica does, by pages of two; not always to the end."""
        self.followers[follower].read(self.store, self.absorbed, pages)

    @rule(follower=st.integers(0, 1))
    def catch_up(self, follower: int) -> None:
        """Whatever was pruned when, who has read all knows what is true."""
        self.followers[follower].read(self.store, self.absorbed, 100)
        assert self.followers[follower].known == self.truth

    @rule(users=st.lists(ids, max_size=4), limit=st.integers(0, KEEP + 1))
    def read(self, users: list[str], limit: int) -> None:
        assert self.store.read(users, limit) == [self.model.state(user, limit) for user in users]

    @rule(items=st.lists(ids, max_size=4))
    def read_cards(self, items: list[str]) -> None:
        assert self.store.cards(items) == [self.model.cards.get(item) for item in items]

    @rule(items=st.lists(ids, max_size=4), fields=st.lists(st.sampled_from(["a", "b", "none", "\ud800"]), max_size=3))
    def read_some_fields(self, items: list[str], fields: list[str]) -> None:
        whole = [self.model.cards.get(item) for item in items]
        assert self.store.cards(items, fields) == [
            None if card is None else {name: value for name, value in card.items() if name in fields} for card in whole
        ]

    @rule()
    def reopen(self) -> None:
        if not isinstance(self.spec, Memory):
            self.store.close()
            self.store = self.spec.open()

    @invariant()
    def everyone_is_as_in_the_model(self) -> None:
        assert self.store.read(IDS, KEEP) == [self.model.state(user, KEEP) for user in IDS]
        kept = self.store.changes(0, 100).changes
        assert [replace(change, number=0) for change in kept] == self.model.changes
        assert [change.number for change in kept] == sorted({change.number for change in kept})


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:60])
def test_a_store_is_its_model(example: StoreSpec, placed: Callable[[StoreSpec, Path], StoreSpec]) -> None:
    Machine = type("Machine", (StoreMachine,), {"example": example, "placed": staticmethod(placed)})
    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
