"""Events over HTTP into a real Redis, and everything bad that may come that way."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from zhiyin.errors import RequestError, SpecError
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.spec import examples
from zhiyin.stores.base import Event, StoreSpec
from zhiyin.stores.redis import Redis, RedisStore

if TYPE_CHECKING:
    from conftest import RedisCluster, RedisSentinels, RedisServer, Turns

NOW = 1_800_000_000_000
SECONDS = NOW / 1000
FIRST = 631_152_000
"""The first moment that an event may have: 1990-01-01, 0:00 UTC."""

FOREIGN = {b"*": b"theirs", b"{}": b"theirs", b"u1": b"theirs", b"\r\n": b"theirs"}
"""What somebody else keeps on the same server, under names that are also ids here."""


@pytest.fixture
def spec(placed: Callable[[StoreSpec, Path], StoreSpec], tmp_path: Path) -> Redis:
    return cast(Redis, placed(Redis(), tmp_path))


@pytest.fixture
def store(spec: Redis) -> Iterator[RedisStore]:
    store = spec.open()
    yield store
    store.close()


@pytest.fixture
def releases(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return Releases(next(path for path in tmp_path_factory.getbasetemp().glob(f"releases*/{release.id}")).parent)


@pytest.fixture
def client(releases: Releases, store: RedisStore) -> Iterator[httpx.Client]:
    with (
        Live(releases) as live,
        running(create(live, store, Service(max_k=60), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def send(client: httpx.Client, *events: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/events", json={"events": events})
    assert answer.status_code == 200, answer.text
    return cast(dict[str, Any], answer.json())


def refused(answer: httpx.Response, status: int = 400) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    return cast(dict[str, str], answer.json()["error"])


def items(store: RedisStore, user: str) -> list[str]:
    return [event.item for event in store.read([user], 100)[0].events]


def test_late_events_take_their_place_by_time_and_one_sent_twice_counts_once(
    client: httpx.Client, store: RedisStore
) -> None:
    def event(item: str, time: float, **more: str) -> dict[str, Any]:
        return {"user_id": "u", "item_id": item, "time": time, **more}

    assert send(client, event("i3", SECONDS, event_id="c"), event("i1", SECONDS - 9, event_id="a"))["accepted"] == 2
    assert send(client, event("i2", SECONDS - 5), event("i9", SECONDS, event_id="c"))["duplicates"] == 1
    assert send(client, event("i2", SECONDS - 5), event("i1", SECONDS - 9, event_id="a"))["duplicates"] == 2
    assert send(client, event("i0", FIRST), event("i4", SECONDS + 300))["accepted"] == 2
    assert items(store, "u") == ["i0", "i1", "i2", "i3", "i4"]
    told = refused(client.post("/v1/events", json={"events": [event("i5", SECONDS + 300.001)]}))
    assert told["where"] == "events[0].time"
    assert told["message"] == f"{SECONDS + 300.001:.3f} is in the future"
    told = refused(client.post("/v1/events", json={"events": [event("i5", FIRST - 0.001)]}))
    assert (told["where"], told["message"]) == ("events[0].time", f"{FIRST - 0.001:.3f} is before 1990-01-01")
    assert items(store, "u") == ["i0", "i1", "i2", "i3", "i4"]


@pytest.mark.parametrize("example", examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_of_a_batch_with_an_event_before_the_services_first_day_no_store_keeps_any(
    example: StoreSpec, placed: Callable[[StoreSpec, Path], StoreSpec], tmp_path: Path, releases: Releases
) -> None:
    """What is loaded from a log is not held to it: public data are old, and some have no clock."""
    store, day = placed(example, tmp_path).open(), datetime(2020, 2, 29, tzinfo=UTC).timestamp()
    batch = [{"user_id": "u", "item_id": f"i{at}", "time": SECONDS - at} for at in range(5)]
    with (
        Live(releases) as live,
        running(create(live, store, Service(earliest_event="2020-02-29"), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        bad = {"user_id": "u", "item_id": "bad", "time": day - 0.001}
        told = refused(client.post("/v1/events", json={"events": [*batch[:3], bad, *batch[3:]]}))
        assert (told["where"], told["message"]) == ("events[3].time", f"{day - 0.001:.3f} is before 2020-02-29")
        assert not store.read(["u"], 1)[0].known
        assert send(client, *batch, {**bad, "time": day})["accepted"] == 6
        store.append([Event("loaded", f"i{at}", at) for at in range(3)])
        assert client.post("/v1/retrieve", json={"user_id": "loaded", "k": 1}).json()["history"] == 3
    store.close()


@pytest.mark.parametrize("day", ["", "1990", "1990-02-30", "yesterday"])
def test_a_first_day_that_is_none_is_refused(day: str) -> None:
    with pytest.raises(SpecError, match=r'^\.earliest_event: .*; expected a date, such as "1990-01-01"'):
        Service(earliest_event=day)


BAD: list[tuple[bytes, str, str]] = [
    (b'{"events": [{"user_id": "\xff", "item_id": "i"}]}', "", "the body is not JSON"),
    (b'{"events": [{"user_id": "\\ud800", "item_id": "i"}]}', "", "the body is not JSON"),
    (b'{"events": [{"item_id": "i"}]}', "events[0]", "missing required field `user_id`"),
    (b'{"events": [{"user_id": "u"}]}', "events[0]", "missing required field `item_id`"),
    (b'{"events": [{"user_id": "", "item_id": "i"}]}', "events[0].user_id", "length >= 1"),
    (b'{"events": [{"user_id": 7, "item_id": "i"}]}', "events[0].user_id", "found `int`"),
    (b'{"events": [{"user_id": "u", "item_id": "i", "event_id": 7}]}', "events[0].event_id", "found `int`"),
    (b'{"events": [{"user_id": "u", "item_id": "i", "stars": 7}]}', "events[0]", "unknown field `stars`"),
    (b'{"events": []}', "events", "length >= 1"),
    (b"{}", "", "missing required field `events`"),
    (b'{"events": [{"user_id": "u", "item_id": "i", "time": "now"}]}', "events[0].time", "found `str`"),
    (b'{"events": [{"user_id": "u", "item_id": "' + b"i" * 1025 + b'"}]}', "events[0].item_id", "length <= 1024"),
]


@pytest.mark.parametrize(("body", "where", "message"), BAD, ids=lambda one: str(one)[:40])
def test_what_is_no_event_is_refused_by_its_path(
    client: httpx.Client, store: RedisStore, body: bytes, where: str, message: str
) -> None:
    told = refused(client.post("/v1/events", content=body))
    assert (told.get("where", ""), message in told["message"]) == (where, True), told
    assert not store.read(["u"], 1)[0].known


def test_one_bad_event_of_a_batch_keeps_none(client: httpx.Client, store: RedisStore) -> None:
    good = [{"user_id": "u", "item_id": f"i{at}"} for at in range(50)]
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    for values, said in (({"a": deep}, "nested more than 64 deep"), ({"a": "x" * 1_048_577}, "1,048,58")):
        bad = {"user_id": "u", "item_id": "i", "values": values}
        told = refused(client.post("/v1/events", json={"events": [*good, bad]}))
        assert told["where"].startswith("events[50].values")
        assert said in told["message"]
    assert not store.read(["u"], 1)[0].known


def test_ten_megabytes_are_too_many(client: httpx.Client, store: RedisStore) -> None:
    pad = "x" * 1000
    events = [{"user_id": "u", "item_id": f"i{at}", "values": {"pad": pad}} for at in range(10_000)]
    body = json.dumps({"events": events})
    assert len(body) > 10_000_000
    told = refused(client.post("/v1/events", content=body), 413)
    assert told["message"] == "the body is larger than 8 MB"
    told = refused(client.put("/v1/users/u/profile", json={"about": "x" * 10_000_000}), 413)
    assert told["where"] == "PUT /v1/users/u/profile"
    told = refused(client.put("/v1/users/u/profile", json={"about": "x" * 2_000_000}))
    assert (told["where"], told["expected"]) == ("profile of user 'u'", "at most 1,048,576")
    assert not store.read(["u"], 1)[0].known
    assert send(client, {"user_id": "u", "item_id": "i1"})["accepted"] == 1


ODD = [
    "\r\n",
    "*",
    "{}",
    "}{",
    "a:b",
    "\x00",
    "知音",
    "u1",
    "u\r\nFLUSHALL\r\n",
    "../..",
    "x" * 1024,
    "[a-z]*",
    "'\"\\",
]


def test_no_id_touches_a_key_outside_the_prefix(
    client: httpx.Client, store: RedisStore, spec: Redis, redis_server: "RedisServer"
) -> None:
    with redis_server.client() as server:
        server.mset(cast(Any, FOREIGN))
        before = {key: server.dump(key) for key in cast(Any, server.keys("*"))}
        for id in ODD:
            told = {"user_id": id, "item_id": id, "event_id": id, "time": FIRST, "values": {id: id}}
            assert send(client, told, {**told, "event_id": ""})["accepted"] == 2
            path = "".join(f"%{byte:02x}" for byte in id.encode())
            assert client.put(f"/v1/users/{path}/profile", json={id: id}).status_code == 200
            assert client.get(f"/v1/items/{path}").status_code == 404
            asked = {"user_id": id, "k": 2, "exclude": [id], "hydrate": [id], "context": {id: id}}
            answer = client.post("/v1/retrieve", json={**asked, "events": [{"item_id": id, "values": {id: id}}]})
            assert answer.status_code == 200
            assert answer.json()["unknown_items"] == [id]
        assert [items(store, id) for id in ODD] == [[id, id] for id in ODD]
        new = set(cast(Any, server.keys("*"))) - set(before)
        assert len(new) == 3 * len(ODD)
        assert all(key.startswith(spec.prefix.encode()) for key in new)
        assert {key: server.dump(key) for key in before} == before
        server.delete(*FOREIGN)


def test_no_id_of_an_item_touches_a_key_outside_the_prefix(
    releases: Releases, store: RedisStore, spec: Redis, redis_server: "RedisServer"
) -> None:
    told = {"tags": ["a"]}
    with (
        redis_server.client() as server,
        Live(releases, store) as live,
        running(create(live, store, Service(max_k=60), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        server.mset(cast(Any, FOREIGN))
        before = {key: server.dump(key) for key in cast(Any, server.keys("*"))}
        body = {"items": [{"item_id": id, "values": told, "card": {id: id}} for id in ODD]}
        assert client.put("/v1/items", json=body).json()["added"] == len(ODD)
        for id in ODD:
            path = "".join(f"%{byte:02x}" for byte in id.encode())
            assert client.get(f"/v1/items/{path}").json()["card"][id] == id
            assert client.delete(f"/v1/items/{path}").json() == {"item_id": id, "found": True}
        new = set(cast(Any, server.keys("*"))) - set(before)
        assert new
        assert all(key.startswith(spec.prefix.encode()) for key in new)
        assert {key: server.dump(key) for key in before} == before
        server.delete(*FOREIGN)


@pytest.mark.parametrize(
    "filter",
    ["(" * 1000 + "title == 'a'" + ")" * 1000, "not " * 1000 + "title == 'a'", " and ".join(["title == 'a'"] * 1000)],
    ids=["parentheses", "nots", "conditions"],
)
def test_a_filter_of_depth_a_thousand_is_refused(client: httpx.Client, filter: str) -> None:
    told = refused(client.post("/v1/retrieve", json={"k": 1, "filter": filter}))
    assert told["where"] == "filter"
    assert "character" in told["message"]


def test_what_is_unknown_is_passed_over_or_refused_by_name(client: httpx.Client) -> None:
    assert send(client, {"user_id": "u", "item_id": "unheard"})["unknown_items"] == ["unheard"]
    answer = client.post("/v1/retrieve", json={"user_id": "nobody", "k": 2, "hydrate": ["no such field"]}).json()
    assert answer["channel"] == "popular"
    assert [candidate["card"] for candidate in answer["candidates"]] == [None, None]
    assert refused(client.post("/v1/retrieve", json={"channel": "x"}))["message"] == (
        "unknown field `channel` (did you mean 'channels'?)"
    )
    assert refused(client.get("/v1/items/unheard"), 404)["message"] == "there is no item 'unheard'"
    assert refused(client.post("/v1/retrieve", json={"k": 1, "filter": "no_such == 1"}))["where"] == "filter"


def test_a_card_of_ten_megabytes_is_refused_by_name(store: RedisStore) -> None:
    with pytest.raises(RequestError, match=r"card of item 'big': 10,000,00\d bytes; expected at most 1,048,576"):
        store.put_cards({"small": {}, "big": {"cover": "x" * 9_999_990}})
    assert store.cards(["small", "big"]) == [None, None]


@pytest.mark.parametrize("example", [Redis(), Redis(cluster=("any:1",))], ids=["one", "cluster"])
def test_a_request_costs_redis_two_round_trips_at_most(
    example: Redis, placed: Callable[[StoreSpec, Path], StoreSpec], tmp_path: Path, releases: Releases, turns: "Turns"
) -> None:
    """Counted where they go over the wire."""
    store = replace(cast(Redis, placed(example, tmp_path)), card_cache=0).open()
    store.append([Event("u", f"i{at}", NOW - 100 + at) for at in range(5)])
    store.put_cards({f"i{at}": {"title": f"title {at}", "room": at % 2} for at in range(60)})
    with (
        Live(releases) as live,
        running(create(live, store, Service(max_k=60), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for user, channels, more, trips in (
            ("u", [], {}, 1),
            ("u", [], {"hydrate": ["*"]}, 2),
            ("u", ["deep", "popular", "item_to_item"], {"hydrate": ["title"], "explain": True, "deadline_ms": 6e4}, 2),
            ("u", ["deep", "popular"], {"diversity": {"weight": 1, "by": "room"}, "merge": {"by": "calibrated"}}, 2),
            ("nobody", ["deep", "item_to_item"], {"hydrate": ["title"], "explain": True}, 2),
            ("", [], {"hydrate": ["title"]}, 1),
            ("", [], {}, 0),
        ):
            asked = {"user_id": user, "k": 40, "channels": channels, **more}
            counted = turns.of(lambda asked=asked: client.post("/v1/retrieve", json=asked).raise_for_status())  # type: ignore[misc]
            assert counted[0] == trips, asked
        events = {"events": [{"user_id": "v", "item_id": f"i{at}"} for at in range(50)]}
        assert turns.of(lambda: client.post("/v1/events", json=events).raise_for_status())[0] == 1
    store.close()


@pytest.fixture
def server(redis_server: "RedisServer", tmp_path: Path) -> Iterator["RedisServer"]:
    (tmp_path / "own").mkdir()
    server = type(redis_server)(tmp_path / "own")
    yield server
    server.kill()


def test_while_redis_is_down_answers_go_on_and_say_so(releases: Releases, server: "RedisServer") -> None:
    spec = Redis(port=server.port, timeout=0.5, card_cache=0)
    store = spec.open()
    store.append([Event("u", f"i{at}", NOW - 100 + at) for at in range(5)])
    store.put_cards({f"i{at}": {"title": f"title {at}", "room": at % 2} for at in range(60)})
    asked = {"user_id": "u", "k": 3, "hydrate": ["title"]}
    with (
        Live(releases) as live,
        running(create(live, store, Service(), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):

        def ask(**more: Any) -> dict[str, Any]:
            answer = client.post("/v1/retrieve", json={**asked, **more})
            assert answer.status_code == 200, answer.text
            return cast(dict[str, Any], answer.json())

        well = ask()
        assert "degraded" not in well
        assert (well["channel"], well["history"]) == ("deep", 5)
        server.kill()
        for _ in range(3):
            down = ask()
            assert (down["degraded"], down["channel"], down["history"]) == (["user", "cards"], "popular", 0)
            assert [candidate["card"] for candidate in down["candidates"]] == [None] * 3
        told = ask(events=[{"item_id": f"i{at}"} for at in range(5)], diversity={"weight": 1, "by": "room"})
        assert (told["degraded"], told["channel"], told["history"]) == (["user", "cards"], "deep", 5)
        assert len(told["candidates"]) == 3
        many = client.post("/v1/retrieve", json={"requests": [{"user_id": "u", "k": 2}, {"k": 2}]}).json()["results"]
        assert [one.get("degraded") for one in many] == [["user"], None]
        event = {"user_id": "u", "item_id": "i9", "event_id": "e", "time": SECONDS}
        refusal = client.post("/v1/events", json={"events": [event]})
        assert "cannot be reached" in refused(refusal, 503)["message"]
        server.start()
        until(lambda: "degraded" not in ask())
        assert send(client, event)["accepted"] == 1
        assert ask()["history"] == 6
    store.close()


def test_a_silent_redis_costs_an_answer_its_deadline_and_no_more(releases: Releases, server: "RedisServer") -> None:
    """It would be waited for ten minutes."""
    store = Redis(port=server.port, timeout=600, card_cache=0).open()
    store.append([Event("u", f"i{at}", NOW - 100 + at) for at in range(5)])
    with (
        Live(releases) as live,
        running(create(live, store, Service(), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        asked = {"user_id": "u", "k": 3, "hydrate": ["title"], "deadline_ms": 20_000}

        def ask(**more: Any) -> dict[str, Any]:
            return cast(dict[str, Any], client.post("/v1/retrieve", json={**asked, **more}).raise_for_status().json())

        assert "degraded" not in ask()
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            answer = ask(deadline_ms=2_000)
            assert (answer["degraded"], answer["channel"], len(answer["candidates"])) == (
                ["user", "cards"],
                "popular",
                3,
            )
        finally:
            server.process.send_signal(signal.SIGCONT)
        until(lambda: "degraded" not in ask())
    store.close()


def test_while_a_master_of_a_cluster_is_down_requests_go_on(
    releases: Releases, redis_cluster: "RedisCluster", tmp_path: Path
) -> None:
    store = Redis(cluster=redis_cluster.addresses, prefix="degraded:").open()
    users = [f"u{at}" for at in range(12)]
    store.append([Event(user, f"i{at}", NOW - 100 + at) for user in users for at in range(5)])
    victim = redis_cluster.nodes[2]
    with (
        Live(releases) as live,
        running(create(live, store, Service(), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):

        def missing() -> list[str]:
            """The users whom an answer did without; every one is answered."""
            found = []
            for user in users:
                answer = client.post("/v1/retrieve", json={"user_id": user, "k": 3}).raise_for_status().json()
                assert len(answer["candidates"]) == 3
                if "degraded" in answer:
                    assert (answer["degraded"], answer["channel"]) == (["user"], "popular")
                    found.append(user)
                else:
                    assert (answer["channel"], answer["history"]) == ("deep", 5)
            return found

        assert missing() == []
        victim.kill()
        try:
            until(lambda: bool(missing()))
        finally:
            victim.start()
            redis_cluster.wait()
        until(lambda: not missing())
        for user in users:
            assert send(client, {"user_id": user, "item_id": "i9"})["accepted"] == 1
    store.close()


class Load:
    """Two threads that post events over HTTP, each batch again until it is accepted; a third that retrieves. Of the 60
    items ten are in no event: a user who has seen all gets none."""

    def __init__(self, url: str) -> None:
        self.url, self.done = url, threading.Event()
        self.accepted = [0, 0]
        self.refused: set[str] = set()
        self.answers: dict[str, int] = {"whole": 0, "degraded": 0}
        self.broken: list[BaseException] = []
        works = [partial(self.write, 0), partial(self.write, 1), self.read]
        self.threads = [threading.Thread(target=self.work, args=(work,)) for work in works]
        for thread in self.threads:
            thread.start()

    def work(self, act: Callable[[httpx.Client], None]) -> None:
        try:
            with httpx.Client(base_url=self.url, timeout=20) as client:
                while not self.done.is_set():
                    act(client)
        except BaseException as error:
            self.broken.append(error)

    def write(self, thread: int, client: httpx.Client) -> None:
        number = self.accepted[thread]
        events = [
            {
                "user_id": f"{thread}.{user}",
                "item_id": f"i{number % 50}",
                "event_id": f"{number}",
                "time": FIRST + number,
            }
            for user in range(6)
        ]
        answer = client.post("/v1/events", json={"events": events})
        if answer.status_code == 200:
            told = answer.json()
            assert told["accepted"] + told["duplicates"] == 6
            self.accepted[thread] += 1
        else:
            assert answer.status_code == 503, answer.text
            self.refused.add(answer.json()["error"]["message"])
            time.sleep(0.02)

    def read(self, client: httpx.Client) -> None:
        """Every request is answered, and says what it lacks."""
        asked = {"user_id": f"0.{self.answers['whole'] % 6}", "k": 5}
        answer = client.post("/v1/retrieve", json=asked).raise_for_status().json()
        assert len(answer["candidates"]) == 5, answer
        assert answer.get("degraded", ["user"]) == ["user"]
        self.answers["degraded" if "degraded" in answer else "whole"] += 1

    def reach(self, more: int) -> None:
        """Until each writer had so many more accepted, and as many requests an answer that lacks nothing."""
        goals, whole = [count + more for count in self.accepted], self.answers["whole"] + more
        until(
            lambda: (
                bool(self.broken)
                or (all(a >= b for a, b in zip(self.accepted, goals, strict=True)) and self.answers["whole"] >= whole)
            )
        )

    def ended(self, store: RedisStore) -> None:
        """Every accepted event is there once; beside them at most the one that was under way."""
        self.done.set()
        for thread in self.threads:
            thread.join()
        assert not self.broken, self.broken
        assert self.refused
        assert self.answers["degraded"]
        for writer, accepted in enumerate(self.accepted):
            for state in store.read([f"{writer}.{user}" for user in range(6)], 1_000_000):
                ids = [event.id for event in state.events]
                assert ids in ([f"{at}" for at in range(accepted)], [f"{at}" for at in range(accepted + 1)])


def test_a_redis_killed_under_load_and_started_again(releases: Releases, server: "RedisServer") -> None:
    store = Redis(port=server.port, keep=1_000_000, timeout=1.0).open()
    with Live(releases) as live, running(create(live, store, Service(), lambda: NOW)) as url:
        load = Load(url)
        try:
            for _ in range(2):
                load.reach(5)
                degraded = load.answers["degraded"]
                server.kill()
                until(lambda degraded=degraded: load.answers["degraded"] > degraded or bool(load.broken))  # type: ignore[misc]
                server.start()
            load.reach(5)
        finally:
            load.done.set()
        load.ended(store)
    assert all("cannot be reached" in one or "still reads" in one for one in load.refused), load.refused
    store.close()


def test_a_master_of_a_cluster_killed_under_load_whose_replica_takes_over(
    releases: Releases, replicated: tuple["RedisCluster", "RedisServer"]
) -> None:
    cluster, replica = replicated
    store = Redis(cluster=cluster.addresses, keep=1_000_000, timeout=1.0).open()
    with Live(releases) as live, running(create(live, store, Service(), lambda: NOW)) as url:
        load = Load(url)
        try:
            load.reach(5)
            cluster.nodes[1].kill()
            until(lambda: (load.answers["degraded"] > 0 and bool(load.refused)) or bool(load.broken))
            load.reach(5)
        finally:
            load.done.set()
        load.ended(store)
    with replica.client() as client:
        assert cast(Any, client).info("replication")["role"] == "master"
    store.close()


def test_a_master_killed_under_load_whose_sentinels_name_another(releases: Releases, watched: "RedisSentinels") -> None:
    """What was accepted, a replica has; so it is there once whichever of the two takes over."""
    spec = Redis(sentinels=watched.addresses, service="main", replicas=1, keep=1_000_000, timeout=1.0)
    store, victim = spec.open(), watched.servers[0]
    with Live(releases, store) as live, running(create(live, store, Service(), lambda: NOW)) as url:
        live.block("i7", NOW, blocked=True)
        load = Load(url)
        try:
            load.reach(5)
            victim.kill()
            until(lambda: (load.answers["degraded"] > 0 and bool(load.refused)) or bool(load.broken))
            load.reach(5)
        finally:
            load.done.set()
        load.ended(store)
        until(lambda: not live.store_trouble)
    assert watched.master() in {one.port for one in watched.servers[1:]}
    assert Live(releases, store).release.finds(["i7", "i8"]).tolist() == [False, True]
    victim.start()
    with victim.client() as client:
        until(lambda: cast(Any, client).info("replication")["role"] == "slave")
        until(lambda: cast(Any, client).info("replication")["master_link_status"] == "up")
    written = [Event("after", "i1", 1, id="once")]
    assert (store.append(written), store.append(written)) == (1, 0)
    store.close()


def until(true: Callable[[], bool]) -> None:
    """Waits for what will be; the limit only ends a test that has failed."""
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
