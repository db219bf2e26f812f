"""When a store that failed is asked again, and by whom."""

import logging
import threading

import pytest

from zhiyin.errors import StoreError
from zhiyin.stores.outage import Outage


class Store:
    """It answers, or fails after a while, and counts how often it was asked."""

    def __init__(self) -> None:
        self.now, self.fails, self.takes, self.asked = 0.0, False, 2.0, 0
        self.outage = Outage(1.0, lambda: self.now)

    def read(self) -> str:
        self.asked += 1
        if self.fails:
            self.now += self.takes
            raise StoreError("gone", where="store")
        return "here"

    def ask(self) -> str | None:
        return self.outage.ask(self.read)


def test_after_it_was_silent_it_is_not_asked_for_a_while_and_then_by_one() -> None:
    store = Store()
    assert store.ask() == "here"
    store.fails = True
    assert [store.ask() for _ in range(5)] == [None] * 5
    assert store.asked == 2
    store.now += 1.0
    assert [store.ask() for _ in range(5)] == [None] * 5
    assert store.asked == 3
    store.fails = False
    store.now += 0.9
    assert store.ask() is None
    store.now += 0.1
    assert [store.ask() for _ in range(5)] == ["here"] * 5


def test_one_that_fails_at_once_is_asked_every_time() -> None:
    store = Store()
    store.fails, store.takes = True, 0.05
    assert [store.ask() for _ in range(5)] == [None] * 5
    assert store.asked == 5
    store.fails = False
    assert store.ask() == "here"


def test_while_one_waits_for_it_no_other_does() -> None:
    store = Store()
    store.fails = True
    store.ask()
    store.fails = False
    store.now += 1.0
    waiting, answered = threading.Event(), threading.Event()

    def slow() -> str:
        waiting.set()
        answered.wait()
        return "here"

    thread = threading.Thread(target=store.outage.ask, args=(slow,))
    thread.start()
    waiting.wait()
    store.now += 100.0
    assert store.ask() is None
    assert store.asked == 1
    answered.set()
    thread.join()
    assert store.ask() == "here"


def test_a_fault_that_is_none_of_the_stores_passes() -> None:
    store = Store()
    with pytest.raises(ZeroDivisionError):
        store.outage.ask(lambda: 1 // 0)
    assert store.ask() == "here"
    store.fails = True
    store.ask()
    store.fails = False
    store.now += 1.0
    with pytest.raises(ZeroDivisionError):
        store.outage.ask(lambda: 1 // 0)
    assert store.ask() == "here"


def test_the_log_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = Store()
    store.fails, store.takes = True, 0.01
    for _ in range(1500):
        store.ask()
    assert [record.message for record in caplog.records] == ["answers go on without the store: store: gone"] * 2
