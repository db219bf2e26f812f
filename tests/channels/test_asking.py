"""Several channels side by side: what is late or fails is left out and named, and nothing else suffers."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from zhiyin.channels.base import Found, Neighbourhoods, Seeker
from zhiyin.channels.lanes import MOST, Busy, Lanes, Result
from zhiyin.channels.online import Online
from zhiyin.channels.popular import Popular
from zhiyin.data.prepared import Prepared
from zhiyin.errors import ChannelError, RequestError
from zhiyin.release import Arrays, Release
from zhiyin.retriever import STORE, Candidates, Request, Retriever
from zhiyin.stores.base import Event, Store, UserState
from zhiyin.stores.memory import Memory, MemoryStore

NOW = 1_800_000_000_000


@dataclass(frozen=True)
class Mine:
    """A channel of a test's own: it does `act`, then says `rows`."""

    act: Callable[[], object] = lambda: None
    rows: tuple[int, ...] = (5, 6)
    asked: list[int] = field(default_factory=list)

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        return {}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        return True

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        self.asked.append(len(seekers))
        self.act()
        rows = np.array(self.rows, np.int32)
        return [Found(rows, -rows.astype(np.float32), np.zeros_like(rows)) for _ in seekers]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a channel may wait for; it opens when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def retriever(**channels: Any) -> Retriever:
    store = Memory().open()
    store.append([Event("u", f"i{at}", NOW + at) for at in range(4)])
    return Retriever(store, online=Online(channels=channels))


class Patient(Lanes):
    """Lanes whose clock the tests have no part in: what is not named here is done at once, what is never comes."""

    def __init__(self, *late: str) -> None:
        super().__init__()
        self.late = late

    def start(self, name: str, work: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        if name not in self.late:
            future.set_result(work())
        return future


def names(answer: Any) -> list[tuple[str, str]]:
    return [(one.channel, one.why) for one in answer.dropped]


def test_a_channel_that_is_late_is_left_out_and_named(release: Release) -> None:
    slow = replace(retriever(slow=Mine()), lanes=Patient("slow"))
    answer = slow.retrieve(release, [Request("u", k=5, channels=("deep", "slow"), deadline_ms=20)])[0]
    assert names(answer) == [("slow", "late: no answer within 20 ms")]
    alone = slow.retrieve(release, [Request("u", k=5)])[0]
    assert (answer.channel, answer.items) == ("deep", alone.items)
    assert answer.sources is not None
    assert [[(one.channel, one.rank) for one in own] for own in answer.sources] == [
        [("deep", at)] for at in range(1, 6)
    ]


def test_the_services_own_deadline_holds_where_the_request_names_none(release: Release) -> None:
    slow = replace(retriever(slow=Mine()), lanes=Patient("slow"))
    slow = replace(slow, online=replace(slow.online, ask=("slow", "popular"), deadline_ms=50.0))
    answer = slow.retrieve(release, [Request("u", k=5)])[0]
    assert names(answer) == [("slow", "late: no answer within 50 ms")]
    assert answer.channel == "popular"


def test_a_channel_that_fails_is_left_out_and_the_log_says_why(
    release: Release, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a secret")

    with caplog.at_level(logging.WARNING, "zhiyin"):
        request = Request("u", k=5, channels=("bad", "popular"))
        answer = retriever(bad=Mine(fail)).retrieve(release, [request])[0]
    assert names(answer) == [("bad", "it failed (ZeroDivisionError); the service's log says more")]
    assert answer.channel == "popular"
    assert "channel bad failed" in caplog.text
    assert "a secret" in caplog.text


class Unread(Patient):
    """What is read from the store in these places (the user first, then the cards) never comes; channels do at once."""

    def __init__(self, *late: int) -> None:
        super().__init__("never")
        self.places, self.reads = late, 0

    def start(self, name: str, work: Callable[[], Result]) -> "Future[Result]":
        self.reads += name == STORE
        return super().start("never" if name == STORE and self.reads in self.places else name, work)


def test_what_the_store_says_too_late_is_missing_and_the_answer_says_so(release: Release) -> None:
    plain = retriever()
    plain.store.put_cards({f"i{at}": {"title": f"title {at}"} for at in range(60)})

    def answer(*late: int, **changes: Any) -> Candidates:
        asked = Request("u", k=3, hydrate=("title",), deadline_ms=20)
        return replace(plain, lanes=Unread(*late)).retrieve(release, [replace(asked, **changes)])[0]

    whole = answer()
    assert (whole.degraded, whole.channel, whole.history) == ((), "deep", 4)
    late = answer(2)
    assert (late.degraded, late.items, late.cards) == (("cards",), whole.items, [None] * 3)
    late = answer(1, events=(Event("u", "i7", NOW),))
    assert (late.degraded, late.channel, late.history) == (("user",), "deep", 1)
    assert late.cards == [{"title": f"title {item[1:]}"} for item in late.items]
    late = answer(1, 2)
    assert (late.degraded, late.channel, late.dropped) == (("user", "cards"), "popular", ())
    plain = replace(plain, online=replace(plain.online, deadline_ms=20.0))
    assert answer(1, deadline_ms=None).degraded == ("user",)


def test_reads_that_hang_are_no_more_than_a_lane_holds(release: Release, gate: threading.Event) -> None:
    """The gate is closed all the time: who waited for the store would wait for ever."""
    calls = []

    class Hanging:
        def read(self, users: Sequence[str], limit: int) -> list[UserState]:
            calls.append(users)
            gate.wait()
            return []

    class Ready(Lanes):
        def start(self, name: str, work: Callable[[], Result]) -> "Future[Result]":
            return super().start(name, work) if name == STORE else Patient().start(name, work)

    hanging = replace(retriever(), store=cast(Store, Hanging()), lanes=Ready())
    for _ in range(MOST + 3):
        answer = hanging.retrieve(release, [Request("u", k=1, deadline_ms=1)])[0]
        assert (answer.degraded, answer.channel) == (("user",), "popular")
    assert len(calls) == MOST


def test_a_deadline_is_one_for_all_that_is_waited_for(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the store moves on: channels have what it left of their share, the most patient request counts,
    and who waits for all is waited for."""
    now, waits = [100.0], list[float | None]()

    class Waiting(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().result(0)

    class Noted(Patient):
        def start(self, name: str, work: Callable[[], Result]) -> "Future[Result]":
            if name != "slow":
                return super().start(name, work)
            return Waiting()

    class Slow(MemoryStore):
        def read(self, users: Sequence[str], limit: int) -> list[UserState]:
            now[0] += 0.02
            return super().read(users, limit)

    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("zhiyin.retriever.time", clock)
    monkeypatch.setattr("zhiyin.channels.asking.time", clock)
    plain = retriever(slow=Mine())
    slow = replace(plain, lanes=Noted(), store=Slow(9))
    asked = Request("u", k=3, channels=("popular", "slow"), deadline_ms=100)
    assert names(slow.retrieve(release, [asked])[0]) == [("slow", "late: no answer within 100 ms")]
    hydrated = replace(asked, hydrate=("title",))
    assert names(slow.retrieve(release, [hydrated])[0]) == [("slow", "late: no answer within 75 ms")]
    slow.retrieve(release, [asked, replace(asked, deadline_ms=300)])
    slow.retrieve(release, [asked, Request("u", k=3)])
    assert waits == [pytest.approx(0.08), pytest.approx(0.055), pytest.approx(0.28), pytest.approx(0.08)]


def test_an_error_of_its_own_time_is_no_deadline(release: Release) -> None:
    def fail() -> None:
        raise TimeoutError("its own server did not answer")

    request = Request("u", k=5, channels=("bad", "popular"), deadline_ms=60_000)
    assert "it failed (TimeoutError)" in names(retriever(bad=Mine(fail)).retrieve(release, [request])[0])[0][1]


def test_only_when_all_fail_the_request_does(release: Release, gate: threading.Event) -> None:
    both = retriever(slow=Mine(gate.wait), late=Mine(gate.wait))
    with pytest.raises(ChannelError, match=r"^no channel answered: slow: late.*; late: late.*Ask again"):
        both.retrieve(release, [Request("u", k=5, channels=("slow", "late"), deadline_ms=20)])
    with pytest.raises(ChannelError, match=r"^requests\[1\]: no channel answered: slow: late: no answer within 20 ms"):
        both.retrieve(release, [Request("u", k=5), Request("u", k=5, channels=("slow",), deadline_ms=20)])


def test_a_channel_that_hangs_is_busy_after_a_while_and_holds_up_no_other(gate: threading.Event) -> None:
    lanes = Lanes()
    nothing: list[Found] = []

    def hang() -> list[Found]:
        gate.wait()
        return nothing

    hung = [lanes.start("hangs", hang) for _ in range(MOST)]
    with pytest.raises(Busy):
        lanes.start("hangs", hang)
    assert lanes.start("other", lambda: nothing).result(30) is nothing
    gate.set()
    assert all(one.result(30) is nothing for one in hung)
    assert lanes.start("hangs", hang).result(30) is nothing, "and it comes back"


def test_threads_are_used_again() -> None:
    lanes, threads = Lanes(), set()
    for _ in range(20):
        lanes.start("one", lambda: cast(Any, threads.add(threading.get_ident()))).result(30)
    assert len(threads) == 1


def test_a_busy_channel_is_named(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhiyin.channels.lanes.MOST", 0)
    with pytest.raises(ChannelError, match=r"popular: busy: \d+ earlier calls have not come back"):
        retriever().retrieve(release, [Request("u", k=5, channels=("deep", "popular"))])


def test_a_plain_request_starts_no_thread(release: Release) -> None:
    before = threading.active_count()
    plain = retriever()
    plain.retrieve(release, [Request("u", k=5), Request(k=3), Request("u", k=2, channels=("popular",))])
    assert threading.active_count() == before
    plain.retrieve(release, [Request("u", k=2, channels=("popular", "deep"))])
    assert threading.active_count() == before + 2


def test_each_channel_is_asked_once_for_all_requests(release: Release) -> None:
    mine = Mine()
    asked = ["mine", "popular", "deep"]
    requests = [Request("u", k=5, channels=tuple(asked[: at + 1])) for at in range(3)]
    retriever(mine=mine).retrieve(release, requests)
    assert mine.asked == [3]


def test_a_channel_of_ones_own_is_held_to_what_was_asked(release: Release) -> None:
    """It says seen, excluded, foreign and too many rows, and one twice; it never gets to say them to anybody."""
    mine = Mine(rows=(1, 60, -7, 40, 40, 41, 42, 43))
    request = Request("u", k=2, channels=("mine",), exclude=("i41",))
    assert retriever(mine=mine).retrieve(release, [request])[0].items == ["i40", "i42"]
    request = replace(request, filter="title in ['title 1', 'title 43']")
    assert retriever(mine=mine).retrieve(release, [request])[0].items == ["i43"]


def test_a_channel_that_answers_too_few_fails(release: Release, caplog: pytest.LogCaptureFixture) -> None:
    @dataclass(frozen=True)
    class Lazy(Mine):
        def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
            return []

    request = Request("u", k=2, channels=("lazy", "deep"))
    assert names(retriever(lazy=Lazy()).retrieve(release, [request])[0]) == [
        ("lazy", "it failed (ChannelError); the service's log says more")
    ]
    assert "channel lazy: 0 lists for 1 seekers" in caplog.text


def test_a_channel_that_fails_to_say_whom_it_knows_is_asked(release: Release) -> None:
    @dataclass(frozen=True)
    class Unsure(Mine):
        def knows(self, release: Release, seeker: Seeker) -> bool:
            raise RuntimeError("no idea")

    request = Request("u", k=2, channels=("unsure", "deep"))
    answer = retriever(unsure=Unsure()).retrieve(release, [request])[0]
    assert (answer.channel, answer.dropped) == ("unsure+deep", ())


def test_a_cold_channel_that_cannot_answer_is_not_the_requests_fault(release: Release) -> None:
    recent = retriever(recent=Popular(days=7))
    recent = replace(recent, online=replace(recent.online, cold="recent"))
    answer = recent.retrieve(release, [Request(k=3, channels=("deep", "popular"))])[0]
    assert answer.channel == "popular"
    assert names(answer)[0][0] == "recent"
    with pytest.raises(ChannelError, match=r"no channel answered: recent: release"):
        recent.retrieve(release, [Request(k=3, channels=("deep",))])


def test_a_channel_that_the_release_was_published_without(release: Release) -> None:
    """Named, the request is refused; of the service's own choice, it is left out."""
    recent = retriever(recent=Popular(days=7))
    for where, requests in (
        (r"channels\[1\]", [Request("u", k=5, channels=("deep", "recent"))]),
        (r"channels\[0\]", [Request("u", k=5, channels=("recent",))]),
        (r"requests\[1\]\.channels\[0\]", [Request("u", k=5), Request("u", k=5, channels=("recent",))]),
    ):
        with pytest.raises(RequestError, match=rf"^{where} ?:? ?.*release '{release.id}' was published without this"):
            recent.retrieve(release, requests)
    chosen = replace(recent, online=replace(recent.online, ask=("deep", "recent")))
    answer = chosen.retrieve(release, [Request("u", k=5)])[0]
    assert answer.channel == "deep"
    assert names(answer)[0][0] == "recent"
    assert "was published without this channel" in names(answer)[0][1]
    alone = replace(recent, online=replace(recent.online, ask=("recent",)))
    with pytest.raises(ChannelError, match=r"no channel answered: recent: release"):
        alone.retrieve(release, [Request("u", k=5)])
