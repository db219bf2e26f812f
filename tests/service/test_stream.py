"""Events through a real Redis stream: none is lost and none doubled, whenever a consumer is killed."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from zhiyin import cli, pipeline
from zhiyin.errors import SpecError, StoreError
from zhiyin.recipe import Recipe
from zhiyin.service.stream import Consumer, Stream
from zhiyin.stores.base import Event, Store, StoreSpec
from zhiyin.stores.redis import Redis, connected

if TYPE_CHECKING:
    from conftest import RedisServer

Placed = Callable[[StoreSpec, Path], StoreSpec]
NOW = 1_800_000_000_000
FIRST = 631_152_000
"""The first moment that an event may have: 1990-01-01, 0:00 UTC."""

VARIABLE = "ZHIYIN_TEST_PASSWORD"


class Line:
    """A stream on a server of ours, the store beside it, and consumers of it."""

    def __init__(self, redis: Redis, spec: Stream) -> None:
        self.redis, self.spec = redis, spec
        self.key = f"{redis.prefix}{{{spec.key}}}"
        self.client: Any = connected(redis)
        self.store: Store = redis.open()

    def consumer(self, store: Any = None, name: str = "") -> Consumer:
        consumer = Consumer(self.spec, self.redis, store or self.store, lambda: NOW)
        consumer.name = name or consumer.name
        return consumer

    def write(self, *events: dict[str, Any]) -> list[str]:
        pipeline = self.client.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(self.key, {"event": json.dumps(event)})
        return [id.decode() for id in pipeline.execute()]

    def drain(self) -> Consumer:
        consumer = self.consumer()
        consumer.run(threading.Event(), once=True)
        consumer.close()
        return consumer

    def events(self, user: str) -> tuple[Event, ...]:
        return self.store.read([user], 1000)[0].events

    def refused(self) -> list[dict[str, str]]:
        entries = self.client.xrange(f"{self.key}:refused")
        return [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in entries]

    def close(self) -> None:
        self.store.close()
        self.client.close()


@pytest.fixture(params=[Redis(), Redis(cluster=("any:1",))], ids=["one", "cluster"])
def line(request: pytest.FixtureRequest, placed: Placed, tmp_path: Path) -> Iterator[Line]:
    line = Line(cast(Redis, placed(request.param, tmp_path)), Stream(batch=10, claim_after=0.05))
    yield line
    line.close()


def test_events_arrive_whole_and_their_entries_go(line: Line) -> None:
    whole = {"user_id": "u", "item_id": "i", "time": 1_700_000_000.25, "values": {"stars": 4}, "event_id": "e1"}
    line.write(whole, *({"user_id": "v", "item_id": f"i{at}", "time": FIRST + at} for at in range(25)))
    consumer = line.drain()
    assert (consumer.counted.kept, consumer.counted.known, consumer.counted.refused) == (26, 0, 0)
    assert line.events("u") == (Event("u", "i", 1_700_000_000_250, {"stars": 4}, "e1"),)
    assert [event.item for event in line.events("v")] == [f"i{at}" for at in range(25)]
    assert line.client.xlen(line.key) == 0
    assert line.client.xinfo_consumers(line.key, line.spec.group) == [], "who closed has left"


def test_without_time_and_id_those_of_the_entry_serve(line: Line) -> None:
    ids = line.write(*[{"user_id": "u", "item_id": "i"}] * 3)
    line.drain()
    events = line.events("u")
    assert [event.id for event in events] == [f"events/{id}" for id in ids]
    assert [event.time for event in events] == [int(id.partition("-")[0]) for id in ids]


def test_an_event_that_is_written_twice_counts_once(line: Line) -> None:
    event = {"user_id": "u", "item_id": "i", "time": FIRST, "event_id": "e1"}
    line.write(event, event)
    counted = line.drain().counted
    assert (counted.kept, counted.known) == (1, 1)
    assert len(line.events("u")) == 1


MALFORMED: list[tuple[dict[Any, Any], str]] = [
    ({"evnt": "{}"}, "the entry has no field 'event', but 'evnt'; expected a field 'event' with JSON"),
    ({"event": "{"}, "the body is not JSON"),
    ({"event": b'{"user_id": "\xff", "item_id": "i"}'}, "the body is not JSON"),
    ({"event": '{"user_id": "u"}'}, "missing required field `item_id`"),
    ({"event": '{"user_id": "u", "item_id": ""}'}, "item_id: "),
    ({"event": '{"user_id": "u", "item_id": "i", "stars": 3}'}, "unknown field `stars`"),
    ({"event": '{"user_id": "u", "item_id": "i", "time": 4e9}'}, "event.time: 4000000000.000 is in the future"),
    (
        {"event": '{"user_id": "u", "item_id": "i", "time": 1800000}'},
        "event.time: 1800000.000 is before 1990-01-01; expected Unix time in seconds, from service.earliest_event on. "
        "It looks like seconds divided by 1,000: multiply by 1,000.",
    ),
    ({"event": '{"user_id": "u", "item_id": "i", "values": {"n": 1e999}}'}, "values[...]: Number out of range"),
    (
        {"event": '{"user_id": "u", "item_id": "i", "values": {"n": [99999999999999999999]}}'},
        "event.values.n[0]: 99999999999999999999 does not fit",
    ),
]


def test_what_is_malformed_is_put_aside_with_the_reason_and_holds_nothing_up(line: Line) -> None:
    for fields, _ in MALFORMED:
        line.write({"user_id": "u", "item_id": "good", "time": FIRST})
        line.client.xadd(line.key, fields)
    counted = line.drain().counted
    assert (counted.kept, counted.refused) == (len(MALFORMED), len(MALFORMED))
    assert [event.item for event in line.events("u")] == ["good"] * len(MALFORMED)
    for (fields, reason), told in zip(MALFORMED, raw(line), strict=True):
        assert reason in told[b"reason"].decode()
        assert b"-" in told[b"entry"]
        assert all(encoded(told[encoded(name)]) == encoded(text) for name, text in fields.items())
    assert line.client.xlen(line.key) == 0


def raw(line: Line) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in line.client.xrange(f"{line.key}:refused")]


def encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def test_the_newest_refused_entries_stay(line: Line) -> None:
    line.spec = replace(line.spec, refused=5)
    line.write(*({"user": at} for at in range(300)))
    assert line.drain().counted.refused == 300
    left = line.refused()
    assert 5 <= len(left) < 150
    assert left[-1]["event"] == '{"user": 299}'


def test_where_others_read_the_stream_too_its_entries_stay(line: Line) -> None:
    line.spec = replace(line.spec, delete=False)
    line.write(*({"user_id": "u", "item_id": "i", "time": FIRST + at} for at in range(3)))
    line.drain()
    assert line.client.xlen(line.key) == 3
    assert line.drain().counted.kept == 0


def test_two_consumers_share_the_entries(line: Line) -> None:
    line.spec = replace(line.spec, claim_after=60.0)
    line.write(*({"user_id": "u", "item_id": f"i{at}", "time": FIRST + at} for at in range(20)))
    one, other = line.consumer(name="one"), line.consumer(name="other")
    assert (one.step(), other.step()) == (10, 10)
    assert (one.counted.kept, other.counted.kept) == (10, 10)
    one.close()
    other.close()


def test_a_stream_that_was_removed_is_begun_anew(line: Line) -> None:
    consumer = line.consumer()
    line.client.delete(line.key)
    line.write({"user_id": "u", "item_id": "i"})
    while not consumer.counted.kept:
        consumer.step()
    assert len(line.events("u")) == 1
    consumer.close()


class Failing:
    """A store that fails so many times, and then is the other."""

    def __init__(self, store: Store, times: int) -> None:
        self.store, self.times = store, times

    def append(self, events: Sequence[Event]) -> int:
        if self.times:
            self.times -= 1
            raise StoreError("no answer")
        return self.store.append(events)


def test_nothing_is_acknowledged_before_the_store_has_kept_it(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.write({"user_id": "u", "item_id": "i"})
    failing = Failing(line.store, 2)
    consumer = line.consumer(failing)
    with pytest.raises(StoreError):
        consumer.step()
    assert line.client.xpending(line.key, line.spec.group)["pending"] == 1
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: bool(line.events("u")))
    stop.set()
    thread.join()
    assert line.client.xpending(line.key, line.spec.group)["pending"] == 0
    assert consumer.counted.kept == 1
    assert "no answer" in caplog.text
    consumer.close()


def test_who_closes_leaves_what_it_could_not_put_to_the_others(line: Line) -> None:
    line.write({"user_id": "u", "item_id": "i"})
    consumer = line.consumer(Failing(line.store, 1), "gone")
    with pytest.raises(StoreError):
        consumer.step()
    consumer.close()
    assert line.drain().counted.kept == 1


DYING = """
import os, signal, sys, threading
from pathlib import Path
from zhiyin.service.stream import Consumer, Stream
from zhiyin.stores.redis import Redis

redis, spec = Redis(port=int(sys.argv[1]), prefix=sys.argv[2]), Stream(batch=20, claim_after=0.2)

class Dying:
    "Is killed at this moment of its n-th append."
    def __init__(self, moment, number):
        self.store, self.moment, self.left = redis.open(), moment, number
    def append(self, events):
        self.left -= 1
        if self.left:
            return self.store.append(events)
        if self.moment != "before":
            self.store.append(events if self.moment == "after" else events[: len(events) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

for words in sys.argv[3:]:
    moment, number = words.split()
    if not os.fork():
        Consumer(spec, redis, Dying(moment, int(number))).run(threading.Event())
    assert os.wait()[1] == signal.SIGKILL
"""
"""Consumers one after the other, each a process that is killed."""


@pytest.fixture
def recipe(redis_server: "RedisServer", placed: Placed, tmp_path: Path) -> Path:
    prefix = cast(Redis, placed(Redis(), tmp_path)).prefix
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[data]\nevents = "log.csv"\n[store]\nuse = "redis:Redis"\nport = {redis_server.port}\nprefix = "{prefix}"\n'
        "[stream]\nbatch = 20\nclaim_after = 0.2\n"
    )
    return path


def started(recipe: Path) -> "subprocess.Popen[str]":
    """`zhiyin consume`, as a process."""
    words = [sys.executable, "-m", "zhiyin.cli", "consume", str(recipe)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def test_whenever_a_consumer_is_killed_no_event_is_lost_and_none_doubled(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Recipe.read(recipe)
    redis = cast(Redis, read.store)
    line = Line(redis, read.stream)
    line.write(*({"user_id": f"u{at % 7}", "item_id": f"i{at}"} for at in range(400)))
    words = [sys.executable, "-c", DYING, str(redis.port), redis.prefix, "before 1", "half 3", "after 2", "half 1"]
    subprocess.run(words, check=True)
    assert line.client.xpending(line.key, "zhiyin")["pending"] >= 20
    alive = started(recipe)
    until(lambda: alive.poll() is not None or line.client.xlen(line.key) < 200)
    alive.kill()
    alive.communicate()
    assert alive.returncode == -signal.SIGKILL
    monkeypatch.setattr(sys, "argv", ["zhiyin", "consume", str(recipe), "--once", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["refused"] == 0
    kept = [event.item for user in range(7) for event in line.events(f"u{user}")]
    assert sorted(kept) == sorted(f"i{at}" for at in range(400))
    assert (line.client.xlen(line.key), line.client.xpending(line.key, "zhiyin")["pending"]) == (0, 0)
    line.close()


def test_the_services_first_day_holds_for_the_stream_too(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(recipe.read_text() + '[service]\nearliest_event = "2020-01-01"\n')
    read = Recipe.read(recipe)
    line = Line(cast(Redis, read.store), read.stream)
    line.write(*({"user_id": "u", "item_id": f"i{at}", "time": 1_577_836_800 - 1 + at} for at in range(2)))
    monkeypatch.setattr(sys, "argv", ["zhiyin", "consume", str(recipe), "--once", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out) == {"kept": 1, "known": 0, "refused": 1}
    assert [event.item for event in line.events("u")] == ["i1"]
    assert "1577836799.000 is before 2020-01-01" in line.refused()[0]["reason"]
    assert (line.client.xlen(line.key), line.client.xpending(line.key, "zhiyin")["pending"]) == (0, 0)
    line.close()


def test_it_is_stopped_by_a_signal_and_says_what_it_did(recipe: Path) -> None:
    read = Recipe.read(recipe)
    line = Line(cast(Redis, read.store), read.stream)
    line.write({"user_id": "u", "item_id": "i"}, {"user_id": "u"})
    process = started(recipe)
    until(lambda: process.poll() is not None or line.client.xlen(line.key) == 0)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert f"taking events from {line.key} as " in said
    assert "refused: Object missing required field `item_id`" in said
    assert "1 events kept, 0 known before, 1 refused" in said
    assert line.client.xinfo_consumers(line.key, "zhiyin") == []
    line.close()


def test_while_redis_is_gone_it_waits_and_then_goes_on(redis_server: "RedisServer", tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    server = type(redis_server)(tmp_path / "own")
    line = Line(Redis(port=server.port), Stream(claim_after=0.2))
    line.write({"user_id": "u", "item_id": "before"})
    consumer, stop = line.consumer(), threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: len(line.events("u")) == 1)
    server.kill()
    server.start()

    def arrived() -> bool:
        with contextlib.suppress(StoreError, redis.ConnectionError):  # while it reads its data
            line.write({"user_id": "u", "item_id": "after", "event_id": "after"})
            return len(line.events("u")) == 2
        return False

    until(arrived)
    until(lambda: line.client.xpending(line.key, "zhiyin")["pending"] == line.client.xlen(line.key) == 0)
    stop.set()
    thread.join()
    assert [event.item for event in line.events("u")] == ["before", "after"]
    consumer.close()
    line.close()
    server.kill()


RIGHTS = [
    *("+ping", "+get", "+set", "+mget", "+mset", "+eval", "+evalsha", "+pexpire", "+exists"),
    *("+llen", "+lrange", "+lindex", "+ltrim", "+rpush", "+sismember", "+sadd", "+srem"),
    *("+xreadgroup", "+xautoclaim", "+xack", "+xdel", "+xadd", "+xpending", "+xgroup"),
]


def test_a_user_with_the_rights_that_the_guide_names_may_consume(
    redis_server: "RedisServer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "serving.md").read_text()
    assert all(right[1:].upper() in guide for right in RIGHTS if right.startswith("+x"))
    monkeypatch.setenv(VARIABLE, "word")
    (tmp_path / "own").mkdir()
    server = type(redis_server)(tmp_path / "own")
    with server.client() as admin:
        admin.execute_command("ACL SETUSER", "app", "on", ">word", "~zhiyin:*", "-@all", *RIGHTS)
        for fields in ({"event": '{"user_id": "u", "item_id": "i"}'}, {"event": "{"}):
            admin.xadd("zhiyin:{events}", cast(Any, fields))
    spec = Redis(port=server.port, username="app", password_env=VARIABLE)
    store = spec.open()
    consumer = Consumer(Stream(claim_after=0.1), spec, store)
    consumer.run(threading.Event(), once=True)
    consumer.close()
    assert (consumer.counted.kept, consumer.counted.refused) == (1, 1)
    with pytest.raises(StoreError, match="refuses us"):
        Consumer(Stream(), replace(spec, prefix="elsewhere:"), store)
    store.close()
    server.kill()


def until(true: Callable[[], bool]) -> None:
    """Waits for what will be; the limit only ends a test that has failed."""
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"key": ""}, r"\.key: ''; expected printable text without"),
        ({"key": "a}b"}, r"\.key: 'a}b'"),
        ({"group": "a\n"}, r"\.group"),
        ({"batch": 0}, r"batch = 0, .*expected batch and refused ≥ 1"),
        ({"claim_after": 0.0}, r"claim_after = 0\.0"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Stream(**table)


def test_a_stream_wants_a_store_on_redis(tmp_path: Path) -> None:
    recipe = Recipe.of({"data": {"events": "log.csv"}}, tmp_path / "recipe.toml")
    said = r"recipe\.toml: a stream lies on Redis, and the store is LMDB\. Set \[store\] use"
    with pytest.raises(SpecError, match=said):
        pipeline.consume(recipe, threading.Event())
    assert not list(tmp_path.iterdir())
