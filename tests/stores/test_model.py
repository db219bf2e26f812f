"""Every store against a plain model, in any order of any calls."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from zhiyin import spec
from zhiyin.stores.base import Event, Store, StoreSpec, UserState
from zhiyin.stores.lmdb import LMDB
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
KEEP = 4


class Plain:
    """A store in the plainest words: each user's events in order of arrival, put in order when they are read."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.cards: dict[str, dict[str, Any]] = {}

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


class StoreMachine(RuleBasedStateMachine):
    """Every call to the store is also made to the model, and both say the same."""

    example: StoreSpec
    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.spec: StoreSpec = (
            LMDB(self.folder / "store", keep=KEEP, map_gb=0.01) if self.durable else Memory(keep=KEEP)
        )
        self.store: Store = self.spec.open()
        self.model = Plain()

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

    @rule(users=st.lists(ids, max_size=4), limit=st.integers(0, KEEP + 1))
    def read(self, users: list[str], limit: int) -> None:
        assert self.store.read(users, limit) == [self.model.state(user, limit) for user in users]

    @rule(items=st.lists(ids, max_size=4))
    def read_cards(self, items: list[str]) -> None:
        assert self.store.cards(items) == [self.model.cards.get(item) for item in items]

    @rule()
    def reopen(self) -> None:
        if self.durable:
            self.store.close()
            self.store = self.spec.open()

    @invariant()
    def everyone_is_as_in_the_model(self) -> None:
        assert self.store.read(IDS, KEEP) == [self.model.state(user, KEEP) for user in IDS]


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: type(one).__name__)
def test_a_store_is_its_model(example: StoreSpec) -> None:
    class Machine(StoreMachine):
        durable = isinstance(example, LMDB)

    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
