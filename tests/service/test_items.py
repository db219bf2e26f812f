"""Items that are put and deleted over real HTTP: on every store, on two replicas, over restarts and new releases."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from zhiyin import client as asking
from zhiyin import spec
from zhiyin.channels.listed import Listed
from zhiyin.channels.online import Online
from zhiyin.errors import RequestError, StoreError
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Features
from zhiyin.features.vector import Vector
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service import items, wire
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.service.overlay import as_of, item_vectors
from zhiyin.stores.base import Change, Store, StoreSpec
from zhiyin.stores.memory import Memory, MemoryStore
from zhiyin.stores.redis import Redis

Publisher = Callable[..., Release]
Placed = Callable[[StoreSpec, Path], StoreSpec]
OLD, NEW = "20260101-000000-aaaa", "20260102-000000-bbbb"
NOW = 1_900_000_000_000
ODD = ["\r\n", "*", "{}", "a/b?c#d%2F", "..", "知音", "x" * 1024, "new 1"]


@contextmanager
def replica(releases: Releases, store: Store, now: int = NOW) -> Iterator[httpx.Client]:
    """A service on a store, which looks often."""
    with (
        Live(releases, store, interval=0.05, follow_interval=0.02) as live,
        running(create(live, store, Service(max_k=100, max_body_mb=3), lambda: now)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def client(releases: Releases) -> Iterator[httpx.Client]:
    with replica(releases, Memory().open()) as client:
        yield client


def put(client: httpx.Client, *items: dict[str, Any]) -> dict[str, Any]:
    answer = client.put("/v1/items", json={"items": list(items)})
    assert answer.status_code == 200, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


def item(id: str, *tags: str, **more: Any) -> dict[str, Any]:
    return {"item_id": id, "values": {"title": f"title of {id}", "tags": list(tags)}, **more}


def found(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """What is found of all there is, and the cards."""
    answer = client.post("/v1/retrieve", json={"profile": {"age": 30}, "hydrate": ["*"], **body})
    assert answer.status_code == 200, answer.text
    return {candidate["item_id"]: candidate["card"] for candidate in answer.json()["candidates"]}


def path(id: str) -> str:
    """ ".." would be made a path by the client."""
    return f"/v1/items/{quote(id, safe='').replace('.', '%2E')}"


def delete(client: httpx.Client, id: str) -> httpx.Response:
    return client.delete(path(id))


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_two_replicas_on_every_store(example: StoreSpec, placed: Placed, tmp_path: Path, releases: Releases) -> None:
    place = placed(example, tmp_path)
    with ExitStack() as open:
        stores = [place.open()]
        stores.append(stores[0] if isinstance(example, Memory) else place.open())
        one, two = (open.enter_context(replica(releases, store)) for store in stores)
        kept = put(one, item("fresh", "a"), item("i7", "c", card={"cover": "c.png"}), *(item(id, "b") for id in ODD))
        assert kept == {"added": 9, "replaced": 1, "unread": []}
        assert found(one).keys() == {f"i{row}" for row in range(60)} | {"fresh", *ODD}
        assert found(one)["i7"] == {"title": "title of i7", "tags": ["c"], "cover": "c.png"}
        until(lambda: "fresh" in found(two))
        until(lambda: found(two) == found(one))
        assert found(two, filter='title == "title of fresh" and tags any ["a"]').keys() == {"fresh"}
        for id in (*ODD, "fresh", "i3"):
            assert delete(two, id).json() == {"item_id": id, "found": True}
            assert id not in found(two)
            assert delete(two, id).json() == {"item_id": id, "found": False}
            assert two.get(path(id)).status_code == 404
        until(lambda: not {"fresh", "i3"} & found(one).keys())
        left = found(one)
        assert left.keys() == {f"i{row}" for row in range(60) if row != 3}
        with replica(releases, place.open() if stores[0] is not stores[1] else stores[0]) as restarted:
            assert found(restarted) == left
        assert put(two, item("i3", "a"), item(ODD[0], "a")) == {"added": 2, "replaced": 0, "unread": []}
        assert {"i3", ODD[0]} <= found(two).keys()
        until(lambda: {"i3", ODD[0]} <= found(one).keys())
        told = one.get("/v1/releases/live").json()
        assert (told["fresh_items"], told["deleted_items"], told["store_error"]) == (1, 8, "")
        for store in stores:
            store.close()


def block(client: httpx.Client, id: str, method: str = "PUT") -> dict[str, Any]:
    answer = client.request(method, path(id).replace("items", "blocks", 1))
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_blocked_items_on_every_store_and_two_replicas(
    example: StoreSpec, placed: Placed, tmp_path: Path, releases: Releases
) -> None:
    """A block is apart from all else that becomes of an item: it holds over puts, deletions, restarts and releases."""
    place = placed(example, tmp_path)
    with ExitStack() as open:
        stores = [place.open()]
        stores.append(stores[0] if isinstance(example, Memory) else place.open())
        one, two = (open.enter_context(replica(releases, store)) for store in stores)
        put(one, *(item(id, "b", card={"cover": "c"}) for id in ODD))
        until(lambda: found(two) == found(one))
        before = found(one)
        for id in (*ODD, "i3"):
            assert block(one, id) == {"item_id": id, "blocked": True, "in_release": True}
        assert block(one, "later") == {"item_id": "later", "blocked": True, "in_release": False}
        assert found(one).keys() == {f"i{row}" for row in range(60) if row != 3}
        until(lambda: found(two) == found(one))
        for client in (one, two):
            told = client.get(path(ODD[0])).json()
            assert (told["card"]["cover"], told["in_release"], told["blocked"]) == ("c", True, True)
            assert client.get(path("later")).status_code == 404
            state = client.get("/v1/releases/live").json()
            assert (state["fresh_items"], state["deleted_items"], state["blocked_items"]) == (0, 0, len(ODD) + 1)
        kept = put(two, item("later", "a"), item("i3", "z"), item("i5", "z"))
        assert kept == {"added": 1, "replaced": 2, "unread": [], "blocked": ["later", "i3"]}
        assert found(two, filter='tags any ["z"]').keys() == {"i5"}
        assert delete(two, ODD[1]).json() == {"item_id": ODD[1], "found": False}
        assert block(two, ODD[1], "DELETE") == {"item_id": ODD[1], "blocked": False, "in_release": False}
        releases.point(NEW)
        until(lambda: all(client.get("/readyz").json()["release"] == NEW for client in (one, two)))
        with replica(releases, place.open() if stores[0] is not stores[1] else stores[0]) as restarted:
            for client in (one, two, restarted):
                assert found(client).keys() == {f"i{row}" for row in range(60) if row != 3}
        for id in (*ODD, "i3", "later"):
            block(one, id, "DELETE")
        left = found(one)
        assert left.keys() == before.keys() - {ODD[1]} | {"later"}
        assert all(left[id] == before[id] for id in (*ODD[2:], ODD[0], "i4"))
        assert found(one, filter='tags any ["z"]').keys() == {"i3", "i5"}
        until(lambda: found(two) == left)
        for store in stores:
            store.close()


def listed(client: httpx.Client, what: str, limit: int = 1000) -> list[dict[str, Any]]:
    """All pages of a list."""
    pages: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        answer = client.get(f"/v1/{what}", params={"after": after, "limit": limit})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert len(told["items"]) <= limit
        pages += told["items"]
        after = told["next"]
    return pages


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_what_is_blocked_or_deleted_now_is_listed_on_every_store(
    example: StoreSpec, placed: Placed, tmp_path: Path, releases: Releases
) -> None:
    store = placed(example, tmp_path).open()
    with replica(releases, store) as client:
        assert listed(client, "blocks") == listed(client, "deletions") == []
        put(client, *(item(id, "a") for id in ODD))
        for id in (*ODD, "i3", "i4", "later"):
            block(client, id)
        for id in (ODD[0], "i5", "never heard of"):
            delete(client, id)
        block(client, "i4", "DELETE")
        put(client, item("i5", "z"))
        block(client, "i3")
        blocked = [ODD[0], *ODD[1:], "later", "i3"]
        at = NOW / 1000
        for limit in (1, 3, 1000):
            assert listed(client, "blocks", limit) == [
                {"item_id": id, "time": at, "in_release": id not in ("later", ODD[0])} for id in blocked
            ]
            assert listed(client, "deletions", limit) == [
                {"item_id": id, "time": at} for id in (ODD[0], "never heard of")
            ]
        for id in blocked:
            block(client, id, "DELETE")
        assert listed(client, "blocks") == []
    store.close()


def test_a_list_of_few_among_many_changes_comes_in_pages_that_may_be_empty(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zhiyin.service.taken.READ", 10)
    monkeypatch.setattr("zhiyin.service.taken.READS", 2)
    put(client, *(item(f"n{at}", "a") for at in range(50)))
    block(client, "i7")
    put(client, *(item(f"m{at}", "a") for at in range(15)))
    first = client.get("/v1/blocks").json()
    assert (first["items"], first["next"]) == ([], 20)
    assert [one["item_id"] for one in listed(client, "blocks")] == ["i7"]


@pytest.mark.parametrize(
    ("query", "where", "message"),
    [
        ("after=-1", "after", "'-1'"),
        ("after=x", "after", "'x'"),
        ("after=9" + "9" * 5000, "after", "'9999"),
        ("after=" + "0" * 25 + "9" * 25, "after", "'0000"),
        ("after=١", "after", "'١'"),
        ("limit=0", "limit", "'0'"),
        ("limit=1001", "limit", "'1001'"),
        ("limit=", "limit", "''"),
        ("from=3", "", "unknown parameter 'from'"),
    ],
)
def test_a_page_that_cannot_be_is_refused(client: httpx.Client, query: str, where: str, message: str) -> None:
    for what in ("blocks", "deletions"):
        answer = client.get(f"/v1/{what}?{query}")
        said = answer.json()["error"]
        assert (answer.status_code, said.get("where", ""), message in said["message"]) == (400, where, True), said


def test_no_channel_merge_filter_or_explanation_names_what_is_blocked(published: Publisher, tmp_path: Path) -> None:
    """By every channel that needs no tables, by one of the service's own, and by all merges."""
    online = Online(channels={"own": Listed(("i2", "i3", "n1"))})
    store, releases = Memory().open(), Releases(tmp_path)
    published(tmp_path, OLD)
    with (
        Live(releases, store, interval=0.05, follow_interval=0.02) as live,
        running(create(live, store, Service(max_k=100), lambda: NOW, online)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        put(client, item("n1", "a"), item("n2", "a"))
        client.post("/v1/events", json={"events": [{"user_id": "u", "item_id": one} for one in ("i2", "i7", "i9")]})
        channels = ["deep", "popular", "item_to_item", "own"]
        bodies: list[dict[str, Any]] = [{"channels": [name]} for name in channels]
        bodies += [
            {"channels": channels, "merge": merge}
            for merge in (
                {"by": "rrf"},
                {"by": "calibrated"},
                {"by": "round_robin"},
                {"by": "quota", "shares": {"own": 1}},
            )
        ]
        bodies += [{"filter": 'tags any ["a"]'}, {"filter": "not missing(title)", "exclude_seen": False}]
        wanted = [{"user_id": "u", "k": 50, "explain": True, "exclude_seen": False, **body} for body in bodies]

        def named() -> set[str]:
            answers = client.post("/v1/retrieve", json={"requests": wanted}).json()["results"]
            candidates = [one for answer in answers for one in answer["candidates"]]
            near = {pull["item_id"] for one in candidates for pull in one["explanation"]["history"]}
            assert all(answer["candidates"] for answer in answers)
            return {one["item_id"] for one in candidates} | near

        gone = {"n1", "i2", "i0"}
        assert named() >= gone
        for id in gone:
            block(client, id)
        assert not named() & gone
        assert "n2" in named()
        for id in gone:
            block(client, id, "DELETE")
        assert named() >= gone
        assert client.put("/v1/blocks/" + "x" * 1025).json()["error"]["where"] == "item_id"
        assert client.put("/v1/blocks/%ff").json()["error"]["where"] == "item_id"
        assert client.delete("/v1/blocks/").status_code == 400
        assert client.post("/v1/blocks/i1").status_code == 405, "no web page may send that unasked"


def test_a_new_item_is_placed_by_its_content_as_the_item_tower_says(client: httpx.Client, releases: Releases) -> None:
    """And an item with the values that it was trained with stays where it was."""
    before = client.post("/v1/retrieve", json={"k": 60, "profile": {"age": 30}}).json()["candidates"]
    scores = {one["item_id"]: one["score"] for one in before}
    put(client, {"item_id": "i7", "values": {"title": "title 7", "tags": ["a", "b"]}}, item("n", "a"), item("m", "c"))
    after = client.post("/v1/retrieve", json={"k": 62, "profile": {"age": 30}}).json()["candidates"]
    now = {one["item_id"]: one["score"] for one in after}
    assert list(now.values()) == sorted(now.values(), reverse=True)
    np.testing.assert_allclose([now[id] for id in scores], list(scores.values()), atol=2e-5)
    release = releases.open()
    known = np.array(release.vectors)
    new = item_vectors(release, np.array([-1, -1], np.int32), [{"tags": ["a"]}, {"tags": ["c"]}])
    query = np.linalg.lstsq(known, np.array([scores[f"i{row}"] for row in range(60)]), rcond=None)[0]
    np.testing.assert_allclose([now["n"], now["m"]], new @ query, atol=1e-3)
    assert abs(now["n"] - now["m"]) > 0.01


def test_filters_exclusion_popular_and_seen_know_fresh_items(client: httpx.Client) -> None:
    put(client, item("n1", "a", "x"), item("n2", "x"), item("i4", "x"), {"item_id": "n3", "values": {"tags": ["c"]}})
    assert found(client, filter='tags any ["x"]').keys() == {"n1", "n2", "i4"}
    assert found(client, filter='tags any ["x"] and not tags any ["a"]').keys() == {"n2", "i4"}
    assert found(client, filter="missing(title)").keys() == {"n3"}
    assert found(client, filter='tags any ["x"]', exclude=["n1", "i4"]).keys() == {"n2"}
    assert found(client, filter='tags any ["x"]', events=[{"item_id": "n2"}]).keys() == {"n1", "i4"}
    assert "i4" not in found(client, filter='tags any ["c"]')
    delete(client, "n1")
    delete(client, "i0")
    assert found(client, filter='tags any ["x"]').keys() == {"n2", "i4"}
    assert "i0" not in found(client, filter="not missing(title)")
    popular = client.post("/v1/retrieve", json={"k": 2}).json()
    assert (popular["channel"], [one["item_id"] for one in popular["candidates"]]) == ("popular", ["i1", "i2"])
    everything = client.post("/v1/retrieve", json={}).json()["candidates"]
    assert {one["item_id"] for one in everything} == ({f"i{row}" for row in range(1, 60)} | {"n2", "n3"})
    answer = client.post(
        "/v1/events", json={"events": [{"user_id": "u", "item_id": "n2"}, {"user_id": "u", "item_id": "no"}]}
    )
    assert answer.json()["unknown_items"] == ["no"]


def test_a_new_release_absorbs_what_it_knows_and_takes_over_the_rest(releases: Releases) -> None:
    store = Memory().open()
    built = int(as_of(releases.open(NEW)))
    early, late = item("early", "a"), item("i9", "z")
    with replica(releases, store, now=built - 1) as before:
        put(before, early, item("i8", "z"), item("i6", "z"))
        delete(before, "i5")
    with replica(releases, store, now=built + 1) as client:
        put(client, late)
        delete(client, "i4")
        assert found(client, filter='tags any ["z"]').keys() == {"i9"}
        with_old = client.post("/v1/retrieve", json={"profile": {"age": 30}}).json()["candidates"]
        releases.point(NEW)
        until(lambda: client.get("/readyz").json()["release"] == NEW)
        assert found(client).keys() == {f"i{row}" for row in range(60) if row not in (4, 5)} | {"early"}
        assert found(client, filter='tags any ["z"]').keys() == {"i9"}
        with_new = client.post("/v1/retrieve", json={"profile": {"age": 30}}).json()["candidates"]
        assert [one["item_id"] for one in with_new] != [one["item_id"] for one in with_old]
        told = client.get("/v1/releases/live").json()
        assert (told["fresh_items"], told["deleted_items"]) == (1, 2)
        put(client, item("i5", "z"))
        releases.point(OLD)
        until(lambda: client.get("/readyz").json()["release"] == OLD)
        assert found(client, filter='tags any ["z"]').keys() == {"i9", "i5"}


def test_a_release_that_has_absorbed_everything_is_served_as_it_is(releases: Releases) -> None:
    store = Memory().open()
    store.put_changes([Change("i1", 0, {"tags": ["z"]}), Change("never heard of", 0, None)])
    live = Live(releases, store)
    plain = [live.release.since is None]
    for change in (Change("i1", 0, None), Change("i1", 0, {"tags": ["z"]})):
        store.put_changes([change])
        live.follow()
        plain.append(live.release.since is None)
    assert plain == [True, False, True]


class Failing:
    """A store whose log does not answer while `broken`."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.broken = store, False

    def __getattr__(self, name: str) -> Any:
        if self.broken and name == "changes":
            raise StoreError("gone", where="store")
        return getattr(self.store, name)


def test_while_the_store_is_gone_what_was_deleted_stays_deleted(releases: Releases) -> None:
    """Also where another release comes meanwhile: it waits until the store has said what became of its items."""
    failing = Failing(Memory().open())
    failing.put_changes([Change("i1", 0, None)])
    live = Live(releases, failing)
    assert live.release.finds(["i1", "i2"]).tolist() == [False, True]
    failing.broken = True
    live.follow()
    assert live.store_trouble == "store: gone"
    releases.point(NEW)
    live.look()
    assert (live.release.id, live.trouble) == (OLD, "store: gone")
    assert not live.release.finds(["i1"])[0]
    failing.broken = False
    for _ in range(3):
        live.look()
    live.follow()
    assert (live.release.id, live.trouble, live.store_trouble) == (NEW, "", "")
    assert not live.release.finds(["i1"])[0]


def test_every_answer_is_of_one_moment_while_items_come_and_go(client: httpx.Client) -> None:
    """Two items are put together and deleted in turn, another lives on: no answer has it without the right card, and
    none fails."""
    put(client, item("always", "a"))
    done = threading.Event()

    def write() -> None:
        for at in range(25):
            put(client, item("left", "x", card={"at": at}), item("right", "x", card={"at": at}))
            delete(client, "left")
            delete(client, "right")
        done.set()

    def read() -> int:
        answers = 0
        while not done.is_set():
            there = found(client, filter='tags any ["x"]').keys()
            assert there in ({"left", "right"}, {"right"}, set())
            assert "always" in found(client)
            answers += 1
        return answers

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        try:
            write()
        finally:
            done.set()
        assert all(one.result() > 0 for one in reading)


deep: Any = 1
for _ in range(100):
    deep = [deep]

REFUSED: list[tuple[Any, str, str, str]] = [
    ({}, "missing required field `items`", "", ""),
    ({"items": []}, "length >= 1", "items", ""),
    ({"items": [{"item_id": "bad"}]}, "missing required field `values`", "items[0]", ""),
    ({"items": [{"item_id": "", "values": {}}]}, "length >= 1", "items[0].item_id", ""),
    ({"items": [{"item_id": "x" * 1025, "values": {}}]}, "length <= 1024", "items[0].item_id", ""),
    ({"items": [{"item_id": "bad", "values": {}, "tags": 1}]}, "unknown field `tags`", "items[0]", ""),
    ({"items": [{"item_id": 7, "values": {}}]}, "found `int`", "items[0].item_id", "`str`"),
    (
        {"items": [item("good", "a"), item("bad", "a"), item("good", "a")]},
        "'good' is items[0]",
        "items[2].item_id",
        "once",
    ),
    ({"items": [item("good", "a"), {"item_id": "bad", "values": {}}]}, "nothing that", "items[1].values", "tags"),
    ({"items": [{"item_id": "bad", "values": {"title": "t"}}]}, "nothing that", "items[0].values", "of tags"),
    ({"items": [{"item_id": "bad", "values": {"tags": 3}}]}, "found 3", "items[0].values.tags", "list of text"),
    ({"items": [{"item_id": "bad", "values": {"tags": [3]}}]}, "found [3]", "items[0].values.tags", "list of text"),
    (
        {"items": [item("bad", "a") | {"values": {"tags": ["a"], "title": 9}}]},
        "found 9",
        "items[0].values.title",
        "text",
    ),
    ({"items": [item("bad", "a", card={"n": 2**70})]}, "does not fit 64 bits", "items[0].card.n", ""),
    ({"items": [{"item_id": "bad", "values": {"tags": ["a"], "n": [2**70]}}]}, "64 bits", "items[0].values.n[0]", ""),
    (
        {"items": [{"item_id": "bad", "values": {"tags": ["a"], "n": deep}}]},
        "nested more than 64",
        "items[0].values.n",
        "",
    ),
    ({"items": [item("bad", "a", card={"pad": "x" * (2 << 20)})]}, "", "items[0].card", "at most 1"),
]


@pytest.mark.parametrize(("body", "message", "where", "expected"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_cannot_be_is_refused_by_its_path_and_nothing_is_kept(
    client: httpx.Client, body: Any, message: str, where: str, expected: str
) -> None:
    answer = client.put("/v1/items", json=body)
    said = answer.json()["error"]
    assert answer.status_code == 400
    assert message in said["message"]
    assert said.get("where", "").startswith(where) if "64" in message else said.get("where", "") == where
    assert expected in said.get("expected", "")
    for id in ("good", "bad"):
        assert client.get(f"/v1/items/{id}").status_code == 404
    assert client.get("/v1/releases/live").json()["fresh_items"] == 0


def test_a_body_that_is_too_large_no_json_or_no_utf8_is_refused(client: httpx.Client) -> None:
    answer = client.put("/v1/items", json={"items": [item("bad", "a", card={"pad": "x" * 10_000_000})]})
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        {"message": "the body is larger than 3 MB", "where": "PUT /v1/items"},
    )
    for body in (
        b'{"items": [{"item_id": "\xff", "values": {}}]}',
        b'{"items": [{"item_id": "\\ud800", "values": {}}]}',
    ):
        answer = client.put("/v1/items", content=body)
        assert (answer.status_code, "not JSON" in answer.json()["error"]["message"]) == (400, True)
    assert client.put("/v1/items", json={"items": [item(f"{at}", "a") for at in range(10_001)]}).status_code == 400
    assert client.request("DELETE", "/v1/items/").json()["error"]["where"] == "item_id"
    assert delete(client, "x" * 1025).status_code == 400


def test_an_id_in_a_path_that_is_no_utf8_is_refused_and_not_read_as_another(client: httpx.Client) -> None:
    put(client, item("\ufffd", "a"))
    for method, path, name in (
        ("DELETE", "/v1/items/%FF", "item_id"),
        ("DELETE", "/v1/items/%ED%A0%80", "item_id"),
        ("GET", "/v1/items/a%C3", "item_id"),
        ("PUT", "/v1/users/%FF/profile", "user_id"),
    ):
        answer = client.request(method, path, json={} if method == "PUT" else None)
        error = answer.json()["error"]
        assert (answer.status_code, error["where"], error["expected"]) == (400, name, "UTF-8, percent-encoded")
        assert error["message"].startswith("the path is not UTF-8: ")
    assert "\ufffd" in found(client)


def test_names_that_the_release_does_not_read_are_told_and_shown_on_the_card(client: httpx.Client) -> None:
    told = {"tags": ["a"], "titel": "misspelt", "price": 3}
    assert put(client, {"item_id": "n", "values": told}) == {"added": 1, "replaced": 0, "unread": ["price", "titel"]}
    assert client.get("/v1/items/n").json() == {"item_id": "n", "card": told, "in_release": True, "blocked": False}


def test_values_are_held_against_what_their_features_can_read(release: Release) -> None:
    """Each feature refuses what it would have refused in training, by its path."""
    features: Features = (Vector("cover", width=3), Numeric("price", scale="log"), *release.schema.item)
    wide = replace(release, schema=replace(release.schema, item=features))
    for told, where, what, expected in (
        ({"cover": [1.0, 2.0]}, "cover", "2 numbers", "3 finite numbers"),
        ({"cover": "c.png"}, "cover", "'c.png'", "3 finite numbers"),
        ({"price": "cheap"}, "price", "'cheap' is no number", "finite numbers"),
        ({"price": -1}, "price", "-1 is negative", "numbers ≥ 0"),
    ):
        with pytest.raises(RequestError) as caught:
            items.checked([wire.NewItem("a", {"tags": ["a"]}), wire.NewItem("b", told)], wide, 1)
        assert caught.value.where == f"items[1].values.{where}"
        assert what in caught.value.what
        assert expected in caught.value.expected
    with pytest.raises(
        RequestError, match=r"items\[0\]\.values: nothing .* expected at least one of cover, price, tags"
    ):
        items.checked([wire.NewItem("a", {"cover": None})], wide, 1)
    bare = replace(release, schema=replace(release.schema, item=()))
    with pytest.raises(RequestError, match=r"items\[0\]\.item_id: 'a' is not in release .*Train with item features"):
        items.checked([wire.NewItem("a", {"title": "t"})], bare, 1)


def test_before_any_release_items_are_refused_and_not_kept(tmp_path: Path) -> None:
    store = Memory().open()
    with replica(Releases(tmp_path), store) as client:
        for answer in (client.put("/v1/items", json={"items": [item("n", "a")]}), delete(client, "n")):
            assert (answer.status_code, "no release is live" in answer.json()["error"]["message"]) == (503, True)
    assert store.changes(0, 9).changes == ()


def test_a_service_that_follows_no_store_says_so(releases: Releases) -> None:
    store = Memory().open()
    with Live(releases) as live, running(create(live, store, Service())) as url, httpx.Client(base_url=url) as client:
        answer = client.put("/v1/items", json={"items": [item("n", "a")]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "this service follows no store")


def test_a_redis_that_dies_and_comes_back_has_kept_what_was_said(
    releases: Releases, tmp_path: Path, redis_server: Any
) -> None:
    (tmp_path / "redis").mkdir()
    server = type(redis_server)(tmp_path / "redis")
    try:
        store = Redis(port=server.port, timeout=1.0, connect_timeout=1.0).open()
        with replica(releases, store) as client:
            put(client, item("n", "a"))
            delete(client, "i3")
            server.kill()
            answer = client.put("/v1/items", json={"items": [item("lost", "a")]})
            assert (answer.status_code, "cannot be reached" in answer.json()["error"]["message"]) == (503, True)
            until(lambda: "cannot be reached" in client.get("/v1/releases/live").json()["store_error"])
            assert client.get("/v1/releases/live").json()["fresh_items"] == 1
            server.start()
            until(lambda: not client.get("/v1/releases/live").json()["store_error"])
            there = found(client).keys()
            assert ("n" in there, "i3" in there, "lost" in there) == (True, False, False)
            put(client, item("after", "a"))
            assert "after" in found(client)
        store.close()
    finally:
        server.kill()


def test_the_client_puts_and_deletes(client: httpx.Client) -> None:
    url = str(client.base_url).rstrip("/")
    assert asking.put_items(url, [item("a/b", "a")]) == {"added": 1, "replaced": 0, "unread": []}
    assert asking.item(url, "a/b")["card"]["title"] == "title of a/b"
    assert asking.block_item(url, "a/b") == {"item_id": "a/b", "blocked": True, "in_release": True}
    assert "a/b" not in found(client)
    assert asking.unblock_item(url, "a/b") == {"item_id": "a/b", "blocked": False, "in_release": True}
    assert asking.delete_item(url, "a/b") == {"item_id": "a/b", "found": True}
    with pytest.raises(RequestError, match=r"items\[0\]\.values: nothing"):
        asking.put_items(url, [{"item_id": "n", "values": {}}])
    assert json.loads(cast(Any, client.get("/openapi.json")).text)["paths"]["/v1/items"].keys() == {"put"}
