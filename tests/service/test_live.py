"""The live release: swapped under load, never mixed, never lost to a broken successor; and a stop that finishes."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from zhiyin.errors import ReleaseError
from zhiyin.manifest import FORMAT, manifest_digest
from zhiyin.places.base import MANIFEST
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event, UserState
from zhiyin.stores.memory import Memory, MemoryStore

Publisher = Callable[..., Release]
OLD, NEW = "20260101-000000-aaaa", "20260102-000000-bbbb"
USERS = [f"u{at}" for at in range(6)]


@pytest.fixture
def store() -> MemoryStore:
    store = Memory().open()
    store.append([Event(user, f"i{at + number}", at) for number, user in enumerate(USERS) for at in range(5)])
    return store


@pytest.fixture
def live(releases: Releases) -> Iterator[Live]:
    with Live(releases, interval=0.01) as live:
        yield live


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def broken(releases: Releases) -> None:
    """The newer release, one of whose files was cut short, becomes the live one."""
    vectors = releases.root / NEW / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    releases.swap(NEW)


def test_every_answer_is_wholly_of_one_release_while_it_swaps(
    releases: Releases, store: MemoryStore, live: Live
) -> None:
    expected = {
        id: {
            user: Retriever(store).retrieve(releases.open(id), [Request(user=user, k=10, time=7)])[0] for user in USERS
        }
        for id in (OLD, NEW)
    }
    assert all(expected[OLD][user].items != expected[NEW][user].items for user in USERS)
    seen: dict[str, int] = {OLD: 0, NEW: 0}
    done = threading.Event()

    def ask(url: str) -> None:
        body = {"requests": [{"user_id": user, "k": 10} for user in USERS]}
        with httpx.Client(base_url=url) as client:
            while not done.is_set():
                results = client.post("/v1/retrieve", json=body).raise_for_status().json()["results"]
                assert len({one["release"] for one in results}) == 1
                for user, one in zip(USERS, results, strict=True):
                    wanted = expected[one["release"]][user]
                    assert [candidate["item_id"] for candidate in one["candidates"]] == wanted.items
                    scores = [candidate["score"] for candidate in one["candidates"]]
                    np.testing.assert_allclose(scores, wanted.scores, atol=1e-4)
                    seen[one["release"]] += 1

    with running(create(live, store, Service(), lambda: 7)) as url, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, url) for _ in range(4)]
        try:
            for id in (NEW, OLD, NEW, OLD, NEW):
                before = seen[id]
                releases.point(id)
                until(lambda id=id, before=before: seen[id] > before or any(one.done() for one in asking))  # type: ignore[misc]
        finally:
            done.set()
        for one in asking:
            one.result()
    assert min(seen.values()) > 0


def test_a_broken_new_release_leaves_the_old_one_live_and_says_so(
    releases: Releases, store: MemoryStore, live: Live
) -> None:
    with running(create(live, store, Service())) as url, httpx.Client(base_url=url) as client:
        broken(releases)
        until(lambda: bool(client.get("/v1/releases/live").json()["pending_error"]))
        told = client.get("/v1/releases/live").json()
        assert told["id"] == OLD
        assert "vectors.npy: damaged" in told["pending_error"]
        assert client.post("/v1/retrieve", json={"user_id": "u1", "k": 3}).json()["release"] == OLD
        assert client.get("/readyz").json()["release"] == OLD
        releases.swap(OLD)
        until(lambda: not client.get("/v1/releases/live").json()["pending_error"])


def test_one_that_is_repaired_goes_live(releases: Releases, two_published: Path) -> None:
    live = Live(releases)
    broken(releases)
    live.look()
    assert "damaged" in live.trouble
    shutil.copy(two_published / NEW / "vectors.npy", releases.root / NEW / "vectors.npy")
    for _ in range(3):
        live.look()
    assert (live.release.id, live.trouble) == (NEW, "")


def test_a_broken_release_is_not_read_at_every_look(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(releases)
    broken(releases)
    opened: list[Path] = []

    def counted(folder: Path) -> Release:
        opened.append(folder)
        raise ReleaseError("still broken")

    monkeypatch.setattr(Release, "open", counted)
    for _ in range(128):
        live.look()
    assert 5 <= len(opened) <= 9


def test_no_error_of_any_kind_ends_the_following(
    releases: Releases, live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Release.open

    def strange(folder: Path) -> Release:
        raise KeyError("schema")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(Release, "open", strange)
    releases.point(NEW)
    until(lambda: "schema" in live.trouble)
    monkeypatch.setattr(Release, "open", whole)
    until(lambda: live.release.id == NEW)
    assert len(caplog.records) == 1  # said once, however often it was tried


def test_the_first_release_is_followed_by_a_service_that_began_without(releases: Releases, tmp_path: Path) -> None:
    empty = Releases(tmp_path / "later")
    with Live(empty, interval=0.01) as live:
        assert live.held is None
        with pytest.raises(ReleaseError, match="no release is live"):
            _ = live.release
        shutil.copytree(releases.root, tmp_path / "later")
        until(lambda: live.held is not None)
        assert live.release.id == OLD


def test_a_current_that_vanishes_takes_nothing_away(releases: Releases) -> None:
    live = Live(releases)
    (releases.root / "CURRENT").write_text("")
    live.look()
    assert live.release.id == OLD
    assert "no release is live" in live.trouble


def test_a_release_of_a_newer_format_is_said_and_not_opened(releases: Releases) -> None:
    live = Live(releases)
    path = releases.root / NEW / MANIFEST
    manifest = json.loads(path.read_text()) | {"format": FORMAT + 1}
    path.write_text(json.dumps(manifest | {"digest": manifest_digest(manifest)}))
    releases.swap(NEW)
    live.look()
    assert live.release.id == OLD
    assert f"release format {FORMAT + 1}; expected format {FORMAT} or older" in live.trouble


class Slow:
    """A store whose reads wait until they may go on."""

    def __init__(self) -> None:
        self.reading, self.go = threading.Event(), threading.Event()

    def read(self, users: list[str], limit: int) -> list[UserState]:
        self.reading.set()
        assert self.go.wait(20)
        return [UserState(None, ()) for _ in users]


def test_a_stop_finishes_the_request_under_way_and_takes_no_more(live: Live) -> None:
    slow = Slow()
    with ThreadPoolExecutor(1) as pool:
        with running(create(live, slow, Service())) as url:  # type: ignore[arg-type]
            asked = pool.submit(httpx.post, f"{url}/v1/retrieve", json={"user_id": "u", "k": 3}, timeout=20)
            assert slow.reading.wait(20)
            threading.Timer(0.3, slow.go.set).start()  # after the stop has begun
        assert not slow.go.is_set() or asked.result().status_code == 200
        answer = asked.result()
    assert (answer.status_code, len(answer.json()["candidates"])) == (200, 3)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
