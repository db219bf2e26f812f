"""What every store does, in single steps; `test_model.py` does the same in any order."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhiyin import spec
from zhiyin.errors import RequestError, StoreError
from zhiyin.stores.base import Change, Event, Page, Store, StoreSpec, UserState
from zhiyin.stores.records import MOST_FIELDS
from zhiyin.stores.redis import Redis

SPECS: list[StoreSpec] = spec.examples("zhiyin.stores")


def named(example: StoreSpec) -> str:
    return "RedisCluster" if isinstance(example, Redis) and example.cluster else type(example).__name__


@pytest.fixture(params=SPECS, ids=named)
def store_spec(request: pytest.FixtureRequest, placed: Callable[[StoreSpec, Path], StoreSpec], tmp_path: Path) -> Any:
    return placed(request.param, tmp_path)


@pytest.fixture
def store(store_spec: StoreSpec) -> Iterator[Store]:
    opened = store_spec.open()
    yield opened
    opened.close()


ODD = ["\r\n", "*", "{}", "a b", "ключ", "知音", "x" * 5000, "0", "u:1/2?#%", "é", "e\u0301", "\x00"]


def times(state: UserState) -> list[int]:
    return [event.time for event in state.events]


def test_nothing_is_known_of_a_user_or_an_item_it_never_heard_of(store: Store) -> None:
    state = store.read(["nobody"], 10)[0]
    assert (state.profile, state.events, state.known) == (None, (), False)
    assert store.cards(["nothing"]) == [None]
    assert store.read([], 10) == []
    assert store.cards([]) == []
    assert store.append([]) == 0


def test_events_come_back_by_time_and_by_arrival_within_a_time(store: Store) -> None:
    late = [Event("u", "c", 30), Event("u", "a", 10), Event("u", "b", 20), Event("u", "d", 20), Event("u", "e", -5)]
    assert store.append(late) == 5
    assert [event.item for event in store.read(["u"], 10)[0].events] == ["e", "a", "b", "d", "c"]


def test_an_event_comes_back_whole(store: Store) -> None:
    event = Event("u", "i", 7, {"stars": 4.5, "tags": ["a", None], "page": {"at": 2**63}, "new": True}, "e1")
    store.append([event])
    assert store.read(["u"], 1)[0].events == (event,)


def test_one_event_sent_twice_is_kept_once(store: Store) -> None:
    event = Event("u", "i", 7)
    assert store.append([event, event]) == 1
    assert store.append([event, Event("u", "i", 8), Event("v", "i", 7)]) == 2
    named = Event("u", "j", 9, id="e1")
    assert store.append([named, Event("u", "k", 10, id="e1"), Event("u", "j", 9), Event("u", "j", 9, id="e2")]) == 3
    assert [(event.item, event.id) for event in store.read(["u"], 9)[0].events] == [
        ("i", ""),
        ("i", ""),
        ("j", "e1"),
        ("j", ""),
        ("j", "e2"),
    ]


def test_the_newest_are_kept_and_the_newest_are_read(store: Store, store_spec: StoreSpec) -> None:
    keep = store_spec.keep
    assert store.append([Event("u", f"i{t}", t) for t in range(keep)]) == keep
    assert store.append([Event("u", "older than all", -1)]) == 0
    assert store.append([Event("u", "new", keep), Event("u", "late", 5)]) == 2
    kept = store.read(["u"], 10 * keep)[0]
    assert times(kept) == sorted([*range(2, keep), 5, keep])
    assert times(store.read(["u"], 3)[0]) == [keep - 2, keep - 1, keep]
    assert store.read(["u"], 0)[0].events == ()
    assert store.append([Event("u", "i0", 0)]) == 0
    assert store.append([Event("u", "i1", keep + 1)]) == 1  # what was dropped may happen again


def test_users_with_like_ids_and_odd_ids_are_told_apart(store: Store) -> None:
    for at, id in enumerate(ODD):
        store.append([Event(id, id, at)])
        store.put_profiles({id: {"at": at}})
        store.put_cards({id: {"title": id}})
    for at, (id, state) in enumerate(zip(ODD, store.read(ODD, 5), strict=True)):
        assert state == UserState({"at": at}, (Event(id, id, at),))
    assert store.cards(ODD) == [{"title": id} for id in ODD]


def test_profiles_and_cards_are_replaced_whole(store: Store) -> None:
    store.put_profiles({"u": {"country": "cn", "age": 30}, "v": {}})
    store.put_profiles({"u": {"age": 31}})
    assert [state.profile for state in store.read(["u", "v", "w"], 1)] == [{"age": 31}, {}, None]
    assert store.read(["v"], 1)[0].known
    store.put_cards({"i": {"title": "one", "price": 1}})
    store.put_cards({"i": {"title": "two"}})
    assert store.cards(["i", "j", "i"]) == [{"title": "two"}, None, {"title": "two"}]


@pytest.mark.parametrize("fields", [(), ("知", "", "none"), [f"f{at}" for at in range(0, 2 * MOST_FIELDS, 2)] * 2])
def test_a_card_is_read_with_the_fields_that_are_asked(store: Store, fields: Sequence[str]) -> None:
    """However many, and in whatever order they lie; an item without a card is none with any of them."""
    cards: dict[str, dict[str, Any]] = {
        "odd": {name: {"deep": [at, None, "x"]} for at, name in enumerate([*ODD, ""])},
        "long": {f"f{at}": at for at in range(3 * MOST_FIELDS)},
        "empty": {},
    }
    store.put_cards(cards)
    wanted = [{name: card[name] for name in card if name in fields} for card in cards.values()]
    for _ in range(2):
        assert store.cards([*cards, "never put"], fields) == [*wanted, None]
    assert store.cards([*cards, "never put"]) == [*cards.values(), None]


def test_dropped_cards_are_gone_and_others_stay(store: Store) -> None:
    store.put_cards({id: {"title": id} for id in ODD})
    store.drop_cards([*ODD[:4], "never there"])
    store.drop_cards([])
    assert store.cards(ODD) == [None] * 4 + [{"title": id} for id in ODD[4:]]
    store.put_cards({ODD[0]: {}})
    assert store.cards(ODD[:2]) == [{}, None]


def told(changes: Sequence[Change]) -> list[tuple[str, int, Any]]:
    return [(change.item, change.time, change.values) for change in changes]


def test_changes_come_in_the_order_they_were_put_the_last_of_each_item(store: Store) -> None:
    assert store.changes(0, 10) == Page(())
    store.put_changes([])
    store.put_changes([Change("a", 5, {"tags": ["x"], "at": 2.5}), Change("b", 6, None), Change("c", 7, {})])
    first = store.changes(0, 10).changes
    assert told(first) == [("a", 5, {"tags": ["x"], "at": 2.5}), ("b", 6, None), ("c", 7, {})]
    assert 0 < first[0].number < first[1].number < first[2].number
    store.put_changes([Change("a", 3, None), Change("d", 8, {}), Change("d", 9, {"n": 1})])
    assert told(store.changes(first[-1].number, 10).changes) == [("a", 3, None), ("d", 9, {"n": 1})]
    assert told(store.changes(0, 10).changes) == [("b", 6, None), ("c", 7, {}), ("a", 3, None), ("d", 9, {"n": 1})]


def test_a_block_has_a_place_of_its_own_beside_what_was_put(store: Store) -> None:
    store.put_changes([Change("a", 1, {"n": 1}), Change("a", 2, None, blocked=True), Change("b", 3, None)])
    store.put_changes([Change("a", 4, None), Change("b", 5, None, blocked=True)])
    kept = store.changes(0, 9).changes
    assert [(one.item, one.time, one.values, one.blocked) for one in kept] == [
        ("a", 2, None, True),
        ("b", 3, None, None),
        ("a", 4, None, None),
        ("b", 5, None, True),
    ]
    store.put_changes([Change("b", 6, {}), Change("a", 7, None, blocked=False)])
    assert store.prune_changes([*kept[:2], kept[3]]) == 1, "b's block alone: of the others there are newer ones"
    kept = store.changes(0, 9).changes
    assert [(one.item, one.time, one.values, one.blocked) for one in kept] == [
        ("a", 4, None, None),
        ("b", 6, {}, None),
        ("a", 7, None, False),
    ]
    with pytest.raises(RequestError, match=r"^changes\[0\]\.values: a block with values; expected None"):
        store.put_changes([Change("a", 1, {"n": 1}, blocked=True)])


def test_changes_are_read_page_by_page_to_the_last(store: Store) -> None:
    store.put_changes([Change(f"i{at}", at, {"at": at}) for at in range(25)])
    read: list[Change] = []
    while page := store.changes(read[-1].number if read else 0, 7).changes:
        assert len(page) <= 7
        read += page
    assert told(read) == [(f"i{at}", at, {"at": at}) for at in range(25)]
    assert store.changes(0, 0).changes == ()


def test_changes_of_odd_ids_are_told_apart(store: Store) -> None:
    store.put_changes([Change(id, -(2**63) if at % 2 else 2**63 - 1, {"id": id}) for at, id in enumerate(ODD)])
    store.put_changes([Change(ODD[0], 1, None)])
    assert [(change.item, change.values) for change in store.changes(0, 99).changes] == [
        *((id, {"id": id}) for id in ODD[1:]),
        (ODD[0], None),
    ]


def test_changes_that_are_pruned_are_gone_and_their_numbers_too(store: Store) -> None:
    store.put_changes([Change(id, 1, {}) for id in "abcd"])
    a, b, c, d = store.changes(0, 9).changes
    assert store.prune_changes([]) == 0
    assert store.changes(0, 9).pruned == 0
    assert store.prune_changes([c, a, a]) == 2
    assert store.changes(0, 9) == Page((b, d), c.number)
    assert store.prune_changes([c, replace(b, number=a.number), Change("never", 1, {}, d.number)]) == 0
    assert store.changes(b.number, 9) == Page((d,), c.number), "what was pruned stays told"
    assert store.prune_changes([d, b]) == 2
    assert store.changes(0, 9) == Page((), d.number)
    store.put_changes([Change("e", 1, None), Change("a", 2, {})])
    assert told(store.changes(d.number, 9).changes) == [("e", 1, None), ("a", 2, {})], "no number is given again"


def test_an_item_that_was_changed_again_is_not_pruned(store: Store) -> None:
    store.put_changes([Change("a", 1, {}), Change("b", 1, {})])
    read = store.changes(0, 9).changes
    store.put_changes([Change("a", 2, None)])
    assert store.prune_changes(read) == 1
    assert told(store.changes(0, 9).changes) == [("a", 2, None)]
    assert store.changes(0, 9).pruned == read[1].number


def test_who_follows_the_changes_of_many_threads_misses_none(store: Store) -> None:
    """8 threads put; one reads on from the last number it saw, as a replica does."""
    done = threading.Event()

    def follow() -> list[Change]:
        seen: list[Change] = []
        while not (done.is_set() and not store.changes(seen[-1].number if seen else 0, 1).changes):
            seen += store.changes(seen[-1].number if seen else 0, 100).changes
        return seen

    def put(thread: int) -> None:
        for at in range(6):
            store.put_changes([Change(f"{thread}.{at}{half}", at, {}) for half in "ab"])

    with ThreadPoolExecutor(9) as pool:
        following = pool.submit(follow)
        try:
            for future in [pool.submit(put, thread) for thread in range(8)]:
                future.result()
        finally:
            done.set()
        seen = following.result()
    assert {change.item for change in seen} == {f"{t}.{at}{half}" for t in range(8) for at in range(6) for half in "ab"}
    assert [change.number for change in seen] == sorted({change.number for change in seen})


def test_what_the_caller_does_afterwards_changes_nothing(store: Store) -> None:
    profile: dict[str, Any] = {"tags": ["a"]}
    values = {"page": ["x"]}
    store.put_profiles({"u": profile})
    store.put_cards({"i": profile})
    store.append([Event("u", "i", 1, values)])
    store.put_changes([Change("i", 1, profile)])
    profile["tags"].append("b")
    values["page"].append("y")
    assert store.read(["u"], 1)[0] == UserState({"tags": ["a"]}, (Event("u", "i", 1, {"page": ["x"]}),))
    assert store.cards(["i"]) == [{"tags": ["a"]}]
    assert told(store.changes(0, 1).changes) == [("i", 1, {"tags": ["a"]})]


def test_numbers_and_text_of_numpy_become_plain_json(store: Store) -> None:
    store.put_profiles({"u": {"age": np.float64(3.5), "name": np.str_("x"), "pair": (1, 2)}})
    assert store.read(["u"], 1)[0].profile == {"age": 3.5, "name": "x", "pair": [1, 2]}


deep: Any = 1
for _ in range(100):
    deep = [deep]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cover": b"png"}, r"events\[1\]\.values\.cover: b'png' is a bytes; expected a JSON value"),
        ({"a": [1, {"b": object}]}, r"events\[1\]\.values\.a\[1\]\.b: .* is a type"),
        ({"a": {1: 2}}, r"events\[1\]\.values\.a: the name 1 is no string"),
        ({"a": 2**64}, r"events\[1\]\.values\.a: 18446744073709551616 does not fit 64 bits"),
        ({"a": float("nan")}, r"events\[1\]\.values\.a: nan is no finite number"),
        ({"a": "\ud800"}, r"events\[1\]\.values\.a: .* is not Unicode text"),
        ({"a": deep}, r"nested more than 64 deep"),
    ],
)
def test_what_is_no_json_is_refused_and_nothing_is_kept(store: Store, values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        store.append([Event("u", "good", 1), Event("u", "bad", 2, values)])
    assert store.read(["u"], 9)[0].events == ()
    for put in (store.put_profiles, store.put_cards):
        with pytest.raises(RequestError, match=said.removeprefix(r"events\[1\]\.values")):
            put({"good": {}, "bad": values})
    assert store.read(["good"], 1)[0].profile is None
    assert store.cards(["good"]) == [None]
    with pytest.raises(RequestError, match=said.replace("events", "changes")):
        store.put_changes([Change("good", 1, {}), Change("bad", 1, values)])
    assert store.changes(0, 9).changes == ()


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Event("", "i", 1), r"events\[0\]\.user: an empty id"),
        (Event("u", "", 1), r"events\[0\]\.item: an empty id"),
        (Event("u", "\udfff", 1), r"events\[0\]\.item: .* is not Unicode text; expected text that UTF-8 can hold"),
        (Event("u", "i", 2**63), r"events\[0\]\.time: 9223372036854775808 does not fit 64 bits"),
    ],
)
def test_an_event_that_no_store_can_hold_is_refused_by_name(store: Store, event: Event, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        store.append([event])
    with pytest.raises(RequestError, match="profiles: an empty id"):
        store.put_profiles({"": {}})
    with pytest.raises(RequestError, match="cards: an empty id"):
        store.put_cards({"": {}})
    if event.item in ("", "\udfff") or event.time >= 2**63:
        with pytest.raises(RequestError, match=said.replace("events", "changes")):
            store.put_changes([Change(event.item, event.time, {})])


def test_the_first_and_the_last_time_there_is_are_times(store: Store) -> None:
    store.append([Event("u", "last", 2**63 - 1), Event("u", "first", -(2**63))])
    assert [event.item for event in store.read(["u"], 2)[0].events] == ["first", "last"]


def test_many_threads_lose_nothing_and_see_whole_writes(store_spec: StoreSpec) -> None:
    """8 threads append pairs to shared users while others read: no pair is ever seen half, none is lost."""
    store = replace(store_spec, keep=1000).open()  # type: ignore[type-var]
    users, pairs = [f"u{at}" for at in range(4)], 10
    done = threading.Event()

    def write(thread: int) -> None:
        for at in range(pairs):
            for user in users:
                name = f"{thread}.{at}"
                store.append([Event(user, f"{name}a", at), Event(user, f"{name}b", at)])
                store.put_profiles({user: {"left": name, "right": name}})

    def read() -> None:
        while not done.is_set():
            for state in store.read(users, 1000):
                names = [event.item[:-1] for event in state.events]
                assert all(names.count(name) == 2 for name in names)
                if state.profile is not None:
                    assert state.profile["left"] == state.profile["right"]

    with ThreadPoolExecutor(10) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        for future in [pool.submit(write, thread) for thread in range(8)]:
            future.result()
        done.set()
        for future in reading:
            future.result()
    wanted = {f"{thread}.{at}{half}" for thread in range(8) for at in range(pairs) for half in "ab"}
    for state in store.read(users, 1000):
        assert {event.item for event in state.events} == wanted
        assert len(state.events) == len(wanted)
    store.close()


def test_the_same_event_from_many_threads_is_kept_once(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: store.append([Event("u", "i", 1)]), range(40)))
    assert sum(new) == 1


def test_a_closed_store_says_so_and_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.append([Event("u", "i", 1)]),
        lambda: store.read(["u"], 1),
        lambda: store.cards(["i"]),
        lambda: store.put_cards({"i": {}}),
        lambda: store.drop_cards(["i"]),
        lambda: store.put_changes([Change("i", 1, {})]),
        lambda: store.changes(0, 1),
        lambda: store.prune_changes([Change("i", 1, {}, 1)]),
        lambda: store.put_profiles({"u": {}}),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="the store is closed"):
            call()


def test_closing_while_others_read_and_write_ends_them_with_a_sentence(store_spec: StoreSpec) -> None:
    def work(store: Store, thread: int) -> str:
        for at in range(1_000_000):
            try:
                store.append([Event(f"u{thread}", "i", at)])
                store.read([f"u{thread}"], 50)
            except StoreError as error:
                return str(error)
        return "never closed"

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            store = store_spec.open()
            working = [pool.submit(work, store, thread) for thread in range(6)]
            time.sleep(0.02)
            store.close()
            assert all("the store is closed" in future.result() for future in working)
