"""Cards that stay in the process: how long, how many, and what another process put is seen."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.errors import SpecError
from zhiyin.stores.base import Change, StoreSpec
from zhiyin.stores.hot import HotCards
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.redis import Redis

if TYPE_CHECKING:
    from conftest import RedisServer

Placed = Callable[[StoreSpec, Path], StoreSpec]
CACHED: list[Any] = [one for one in spec.examples("zhiyin.stores") if hasattr(one, "card_cache")]


def named(example: Any) -> str:
    return "RedisCluster" if getattr(example, "cluster", ()) else type(example).__name__


class Source:
    """A clock, what is stored, and how often it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stored: dict[str, int] = {}
        self.asked: list[list[str]] = []

    def fetch(self, items: list[str]) -> list[bytes | None]:
        self.asked.append(items)
        return [b"%d" % self.stored[item] if item in self.stored else None for item in items]

    def of(self, hot: HotCards, *items: str, version: object = None) -> list[int | None]:
        return [None if card is None else int(card) for card in hot.cards(items, self.fetch, version)]


def test_a_card_is_fetched_once_and_one_that_is_missing_too() -> None:
    source = Source()
    source.stored = {"a": 1, "b": 2}
    hot = HotCards(100, 1.0, lambda: source.now)
    assert source.of(hot, "a", "c", "a") == [1, None, 1]
    assert source.of(hot, "b", "a", "c") == [2, 1, None]
    assert source.asked == [["a", "c"], ["b"]]
    assert source.of(hot) == []


def test_what_is_forgotten_is_read_anew_and_the_rest_is_not() -> None:
    source = Source()
    source.stored = {"a": 1, "b": 1}
    hot = HotCards(100, 1.0, lambda: source.now)
    source.of(hot, "a", "b")
    source.stored = {"a": 2, "b": 2}
    hot.forget(["a"])
    assert source.of(hot, "a", "b") == [2, 1]


def test_another_version_forgets_all() -> None:
    source = Source()
    source.stored = {"a": 1}
    hot = HotCards(100, float("inf"), lambda: source.now)
    assert source.of(hot, "a", version=1) == [1]
    source.stored = {"a": 2}
    assert source.of(hot, "a", version=1) == [1]
    assert source.of(hot, "a", version=2) == [2]


def test_what_was_read_before_it_was_forgotten_is_not_kept() -> None:
    """One request's read is under way while another puts the card."""
    source = Source()
    source.stored = {"a": 1}
    hot = HotCards(100, 1.0, lambda: source.now)

    def slow(items: list[str]) -> list[bytes | None]:
        read = source.fetch(items)
        source.stored = {"a": 2}
        hot.forget(["a"])
        return read

    assert hot.cards(["a"], slow) == [b"1"]
    assert source.of(hot, "a") == [2]


def test_no_cache_is_no_cache() -> None:
    source = Source()
    hot = HotCards(0, 1.0, lambda: source.now)
    source.of(hot, "a")
    source.of(hot, "a")
    assert source.asked == [["a"], ["a"]]


@given(st.lists(st.tuples(st.floats(0, 0.8), st.integers(0, 9), st.booleans()), max_size=60))
def test_no_card_is_older_than_its_age_and_there_are_never_too_many(steps: list[tuple[float, int, bool]]) -> None:
    """Every card holds the time it was stored at; the store changes all the time."""
    source = Source()
    size = 6
    hot = HotCards(size, 1.0, lambda: source.now)
    read_at: dict[str, float] = {}
    for wait, item, forget in steps:
        source.now += wait
        name = str(item)
        if forget:
            hot.forget([name])
            read_at.pop(name, None)
        before = len(source.asked)
        hot.cards([name], source.fetch)
        if len(source.asked) > before:
            read_at[name] = source.now
        assert source.now - read_at[name] <= 1.0
        assert len(hot._young) + len(hot._old) <= size + 2


def test_a_card_that_is_asked_again_within_half_its_age_is_kept() -> None:
    source = Source()
    hot = HotCards(100, 1.0, lambda: source.now)
    for _ in range(5):
        source.of(hot, "a")
        source.now += 0.09
    assert len(source.asked) == 1


@pytest.mark.parametrize("example", CACHED, ids=named)
def test_what_another_process_puts_is_seen_within_the_age(example: Any, placed: Placed, tmp_path: Path) -> None:
    one: Any = placed(example, tmp_path)
    if isinstance(one, Redis):
        one = replace(one, card_age=0.3)
    here, there = one.open(), one.open()
    here.put_cards({"a": {"at": 1}})
    for at in range(2, 6):
        assert there.cards(["a", "new"]) == [{"at": at - 1}, None if at == 2 else {"at": at - 1}]
        here.put_cards({"a": {"at": at}, "new": {"at": at}})
        written = time.monotonic()
        assert here.cards(["a", "new"]) == [{"at": at}] * 2, "its own writes it sees at once"
        if isinstance(one, Redis):
            time.sleep(max(0.0, written + one.card_age - time.monotonic()))
        assert there.cards(["a", "new"]) == [{"at": at}] * 2
    here.close()
    there.close()


@pytest.mark.parametrize("example", CACHED, ids=named)
def test_cards_come_from_the_process_and_not_from_the_store(
    example: Any, placed: Placed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one: Any = placed(example, tmp_path)
    if isinstance(one, Redis):
        one = replace(one, card_age=1000.0)
    fetched: list[str] = []
    ask = HotCards.cards

    def cards(self: HotCards, items: list[str], fetch: Any, version: object = None) -> Any:
        def count(missing: list[str]) -> Any:
            fetched.extend(missing)
            return fetch(missing)

        return ask(self, items, count, version)

    monkeypatch.setattr(HotCards, "cards", cards)
    store, plain = one.open(), replace(one, card_cache=0).open()
    store.put_cards({"a": {"at": 1, "b": 2}})
    for fields, card in ((("at",), {"at": 1}), (("b",), {"b": 2}), (None, {"at": 1, "b": 2})):
        assert store.cards(["a"], fields) == [card]
        assert fetched == ["a"], "whichever fields were asked first, the card is there"
    for _ in range(2):
        plain.cards(["a"])
    assert fetched == ["a"] * 3
    store.close()
    plain.close()


@pytest.mark.parametrize("example", CACHED, ids=named)
def test_a_card_that_was_dropped_is_gone_and_a_change_that_is_read_tells_of_it(
    example: Any, placed: Placed, tmp_path: Path
) -> None:
    one: Any = placed(example, tmp_path)
    if isinstance(one, Redis):
        one = replace(one, card_age=1000.0)
    here, there = one.open(), one.open()
    here.put_cards({"a": {"at": 1}, "b": {"at": 1}})
    assert here.cards(["a", "b"]) == there.cards(["a", "b"]) == [{"at": 1}] * 2
    here.drop_cards(["a"])
    here.put_cards({"b": {"at": 2}})
    here.put_changes([Change("a", 1, None), Change("b", 1, {"at": 2})])
    assert here.cards(["a", "b"]) == [None, {"at": 2}]
    assert [change.item for change in there.changes(0, 10).changes] == ["a", "b"]
    assert there.cards(["a", "b"]) == [None, {"at": 2}]
    here.close()
    there.close()


def test_redis_that_is_gone_still_has_hot_cards(redis_server: "RedisServer", tmp_path: Path) -> None:
    server = type(redis_server)(tmp_path)
    store = Redis(port=server.port, card_age=1000.0).open()
    store.put_cards({"a": {"at": 1}})
    store.cards(["a"])
    server.kill()
    assert store.cards(["a"]) == [{"at": 1}]
    store.close()


@pytest.mark.parametrize("example", CACHED, ids=named)
def test_many_threads_read_while_cards_are_put(example: Any, placed: Placed, tmp_path: Path) -> None:
    """Who asks after a put has returned sees what it put, or newer."""
    store = placed(example, tmp_path).open()
    items = [f"i{at}" for at in range(20)]
    done, wrong, put = threading.Event(), [], 0
    store.put_cards({item: {"at": 0} for item in items})

    def read() -> None:
        while not done.is_set():
            before = put
            lowest = min(card["at"] for card in store.cards(items) if card is not None)
            if lowest < before:
                wrong.append((lowest, before))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(1, 25):
        store.put_cards({item: {"at": at} for item in items})
        put = at
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.cards(items) == [{"at": 24}] * 20
    store.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Redis(card_cache=-1), r"card_cache = -1, card_age = 1\.0; expected card_cache ≥ 0"),
        (lambda: Redis(card_age=0.0), r"card_age = 0\.0"),
        (lambda: LMDB(card_cache=-1), r"card_cache = -1; expected keep ≥ 1, map_gb > 0 and card_cache ≥ 0"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()
