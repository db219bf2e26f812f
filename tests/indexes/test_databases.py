"""Indexes in a vector database: what a release keeps of its collection, whose collections are dropped, and what happens
when the server goes. Milvus is Milvus Lite in a process of its own; Qdrant its REST interface before the client's own
engine (tests/conftest.py says why)."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from qdrant_client import models

from zhiyin import spec
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import ReleaseError, SearchError, SpecError
from zhiyin.indexes import database, tune
from zhiyin.indexes.base import HostedSpec, IndexSpec, Vectors
from zhiyin.indexes.database import Database, Receipt
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.milvus import Milvus
from zhiyin.indexes.milvus import MilvusServer as MilvusDatabase
from zhiyin.indexes.qdrant import Qdrant
from zhiyin.indexes.qdrant import QdrantServer as QdrantDatabase
from zhiyin.manifest import checksums, manifest_digest, written
from zhiyin.recipe import Recipe
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.memory import Memory

if TYPE_CHECKING:
    from conftest import MilvusServer, Publisher, QdrantServer

SIZE, DIM = 300, 8
VECTORS = np.random.default_rng(1).standard_normal((SIZE, DIM)).astype(np.float32)
USERS = np.random.default_rng(2).standard_normal((5, DIM)).astype(np.float32)
SPECS = [Milvus(m=16, ef_construction=64), Qdrant()]

Spec = Milvus | Qdrant


@pytest.fixture(params=SPECS, ids=lambda one: type(one).__name__)
def hosted_spec(request: pytest.FixtureRequest, hosted: Callable[[IndexSpec], IndexSpec]) -> Spec:
    """On a server of ours, under a name of its own."""
    placed = hosted(request.param)
    assert isinstance(placed, Milvus | Qdrant)
    return replace(placed, name=f"n{uuid.uuid4().hex}")


def server(spec: Spec) -> Database:
    return MilvusDatabase(spec) if isinstance(spec, Milvus) else QdrantDatabase(spec)


def own(spec: Spec) -> list[str]:
    """The collections whose names begin with the spec's."""
    return sorted(one for one in server(spec).collections() if one.startswith(spec.name))


def put(spec: Spec, path: Path, vectors: Vectors = VECTORS) -> str:
    """Build and save an index; its collection."""
    spec.build(vectors).save(path)
    return Receipt.read(path, server(spec).kind).collection


def foreign_collection(spec: Spec, name: str, marker: Any = None) -> None:
    """What somebody else makes by the plain client: one row, and perhaps what looks like a marker."""
    if isinstance(spec, Qdrant):
        client = QdrantDatabase(spec)
        with client._call() as (plain, _):
            plain.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT), metadata=marker)
        return
    plain = MilvusClient(spec.uri)
    schema = plain.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    told = {} if marker is None else {"properties": {"zhiyin": json.dumps(marker)}}
    plain.create_collection(name, schema=schema, **told)


def test_what_a_release_keeps_is_a_small_receipt(hosted_spec: Spec, tmp_path: Path) -> None:
    put(hosted_spec, tmp_path / "index.bin")
    text = (tmp_path / "index.bin").read_text()
    (told,) = json.loads(text).values()
    assert set(told) == {"collection", "rows", "dim", "vectors"}
    assert (told["rows"], told["dim"]) == (SIZE, DIM)
    assert told["collection"].startswith(f"{hosted_spec.name}_2")
    assert len(text) < 500
    assert own(hosted_spec) == [told["collection"]]


def test_two_builds_are_two_collections_and_each_is_searched_by_its_own(hosted_spec: Spec, tmp_path: Path) -> None:
    other = np.ascontiguousarray(VECTORS[::-1])
    collections = {put(hosted_spec, tmp_path / "a"), put(hosted_spec, tmp_path / "b", other)}
    assert set(own(hosted_spec)) == collections
    for path, vectors in ((tmp_path / "a", VECTORS), (tmp_path / "b", other)):
        hits = hosted_spec.load(path, vectors).search(USERS, SIZE)
        assert (hits.rows == Exact().build(vectors).search(USERS, SIZE).rows).all()


def test_a_collection_that_is_gone_is_said_so(hosted_spec: Spec, tmp_path: Path) -> None:
    collection = put(hosted_spec, tmp_path / "index.bin")
    index = hosted_spec.load(tmp_path / "index.bin", VECTORS)
    server(hosted_spec).drop(collection)
    said = f"at http://.*: the collection '{collection}' is gone. Publish again, or roll back"
    for _ in range(2):
        with pytest.raises(SearchError, match=said):
            index.search(USERS, 5)
    with pytest.raises(SearchError, match=said):
        hosted_spec.load(tmp_path / "index.bin", VECTORS)
    with pytest.raises(SearchError, match="is gone"):
        index.save(tmp_path / "again")
    few = np.arange(SIZE) < 5
    assert (np.sort(index.search(USERS, 5, few).rows) == np.arange(5)).all()  # so few are searched here


def test_a_collection_of_another_size_is_refused(hosted_spec: Spec, tmp_path: Path) -> None:
    collection = put(hosted_spec, tmp_path / "index.bin")
    server(hosted_spec).insert(collection, SIZE, VECTORS[:1])
    with pytest.raises(SearchError, match=f"'{collection}' has 301 rows; expected 300. Something has changed it"):
        hosted_spec.load(tmp_path / "index.bin", VECTORS)


def test_rows_that_the_release_has_not_are_no_answer(hosted_spec: Spec, tmp_path: Path) -> None:
    put(hosted_spec, tmp_path / "index.bin")
    receipt = Receipt.read(tmp_path / "index.bin", server(hosted_spec).kind)
    from zhiyin.indexes.hosted import HostedIndex

    smaller = HostedIndex(server(hosted_spec), receipt, VECTORS[: SIZE // 2])
    with pytest.raises(SearchError, match="has rows that this release has not"):
        smaller.search(USERS, 50)


def test_the_receipt_of_another_release_is_refused(hosted_spec: Spec, tmp_path: Path) -> None:
    put(hosted_spec, tmp_path / "index.bin")
    other = put(hosted_spec, tmp_path / "other.bin", VECTORS * 2)
    with pytest.raises(SearchError, match=r"other\.bin: not this backend's index.*it is of other vectors"):
        hosted_spec.load(tmp_path / "other.bin", VECTORS)
    (kind, told), *_ = json.loads((tmp_path / "index.bin").read_text()).items()
    (tmp_path / "forged.bin").write_text(json.dumps({kind: {**told, "collection": other}}))
    with pytest.raises(SearchError, match=f"the collection '{other}' is not this release's"):
        hosted_spec.load(tmp_path / "forged.bin", VECTORS)


def test_the_alias_is_made_and_moves_and_goes_with_its_collection(hosted_spec: Spec, tmp_path: Path) -> None:
    there, name = server(hosted_spec), hosted_spec.name
    first, second = put(hosted_spec, tmp_path / "a"), put(hosted_spec, tmp_path / "b")
    assert there.aliased(name) == ""
    for path, collection in (("a", first), ("b", second), ("b", second), ("a", first)):
        hosted_spec.went_live(tmp_path / path)
        assert there.aliased(name) == collection
    hosted_spec.retire(tmp_path / "b")
    assert (own(hosted_spec), there.aliased(name)) == ([first], first)
    hosted_spec.retire(tmp_path / "a")
    hosted_spec.retire(tmp_path / "a")
    assert (own(hosted_spec), there.aliased(name)) == ([], "")


def test_what_others_made_survives_whatever_it_is_called(hosted_spec: Spec, tmp_path: Path) -> None:
    name, long_ago = hosted_spec.name, {"begun": 1}
    foreign = {
        f"{name}_20200101_000000_deadbeef": None,
        f"{name}_notes": {"made by": "hand"},
        f"{name}_2": {"zhiyin": f"{name}_2", "collection": f"{name}_2", **long_ago},
        f"{name}_copy": {"zhiyin": name, "collection": f"{name}_original", **long_ago},
        f"{name}x": {"zhiyin": name, "collection": f"{name}x", **long_ago},
    }
    for collection, marker in foreign.items():
        foreign_collection(hosted_spec, collection, marker)
    first = put(hosted_spec, tmp_path / "a")
    second = put(hosted_spec, tmp_path / "b")
    assert own(hosted_spec) == sorted([*foreign, first, second])
    hosted_spec.retire(tmp_path / "a")
    assert own(hosted_spec) == sorted([*foreign, second])


def test_a_receipt_that_names_what_is_not_its_own_drops_nothing(hosted_spec: Spec, tmp_path: Path) -> None:
    first = put(hosted_spec, tmp_path / "a")
    second = put(hosted_spec, tmp_path / "b", VECTORS * 2)
    foreign_collection(hosted_spec, f"{hosted_spec.name}_mine")
    (kind, told), *_ = json.loads((tmp_path / "a").read_text()).items()
    for other in (second, f"{hosted_spec.name}_mine"):
        (tmp_path / "forged").write_text(json.dumps({kind: {**told, "collection": other}}))
        with pytest.raises(SearchError, match=f"the collection '{other}' is not this release's, and stays"):
            hosted_spec.retire(tmp_path / "forged")
    assert own(hosted_spec) == sorted([first, second, f"{hosted_spec.name}_mine"])


def test_a_collection_or_an_alias_of_that_name_which_is_not_ours_stays(hosted_spec: Spec, tmp_path: Path) -> None:
    taken = replace(hosted_spec, name=f"{hosted_spec.name}_taken")
    foreign_collection(taken, taken.name)
    with pytest.raises(SearchError, match=f"a collection is called '{taken.name}', as the alias should be. Give the"):
        taken.build(VECTORS)
    assert own(taken) == [taken.name]
    foreign_collection(hosted_spec, f"{hosted_spec.name}_theirs")
    there = server(hosted_spec)
    put(hosted_spec, tmp_path / "index.bin")
    there.point(hosted_spec.name, f"{hosted_spec.name}_theirs")
    with pytest.raises(SearchError, match=f"points to '{hosted_spec.name}_theirs', which is not zhiyin's. Give the"):
        hosted_spec.went_live(tmp_path / "index.bin")
    assert there.aliased(hosted_spec.name) == f"{hosted_spec.name}_theirs"


def test_what_a_killed_publish_left_is_swept_after_a_day(hosted_spec: Spec, tmp_path: Path) -> None:
    there, name = server(hosted_spec), hosted_spec.name
    made: dict[str, float] = {}
    for begun, saved in ((time.time() - 90_000, False), (time.time() - 80_000, False), (time.time() - 90_000, True)):
        collection = f"{name}_{len(made)}"
        marker = {"zhiyin": name, "collection": collection, "begun": begun, **({"saved": True} if saved else {})}
        there.create(collection, DIM, marker)
        made[collection] = begun
    first = put(hosted_spec, tmp_path / "index.bin")
    assert own(hosted_spec) == sorted([f"{name}_1", f"{name}_2", first])


class Breaks:
    """A database that fails at one step, and does the others."""

    def __init__(self, inner: Database, step: str) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        if name == self._step:
            raise SearchError("it broke")
        return getattr(self._inner, name)


def test_an_alias_goes_before_its_collection(hosted_spec: Spec, tmp_path: Path) -> None:
    """A Milvus server drops no collection that has an alias, and a Qdrant server would drop both."""
    collection = put(hosted_spec, tmp_path / "index.bin")
    hosted_spec.went_live(tmp_path / "index.bin")
    broken: Any = Breaks(server(hosted_spec), "unpoint")
    with pytest.raises(SearchError, match="it broke"):
        database.retire(broken, hosted_spec.name, tmp_path / "index.bin")
    assert own(hosted_spec) == [collection]


@pytest.mark.parametrize("step", ["insert", "finish", "count"])
def test_a_build_that_fails_half_way_leaves_nothing(hosted_spec: Spec, step: str) -> None:
    broken: Any = Breaks(server(hosted_spec), step)
    with pytest.raises(SearchError, match="it broke"):
        database.build(broken, hosted_spec.name, VECTORS)
    assert own(hosted_spec) == []


def test_rows_are_sent_a_block_at_a_time(hosted_spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "NUMBERS_AT_ONCE", 70 * DIM)
    seen: list[tuple[int, int]] = []

    class Counting(Breaks):
        def insert(self, collection: str, first: int, vectors: Vectors) -> None:
            seen.append((first, len(vectors)))
            self._inner.insert(collection, first, vectors)

    counting: Any = Counting(server(hosted_spec), "")
    receipt = database.build(counting, hosted_spec.name, VECTORS)
    assert seen == [(0, 70), (70, 70), (140, 70), (210, 70), (280, 20)]
    assert receipt.rows == server(hosted_spec).count(receipt.collection) == SIZE


def test_queries_go_in_batches(hosted_spec: Spec) -> None:
    asked: list[tuple[int, int]] = []

    class Counting(Breaks):
        def search(self, collection: str, queries: Vectors, k: int) -> Any:
            asked.append((len(queries), k))
            return self._inner.search(collection, queries, k)

    index: Any = hosted_spec.build(VECTORS)
    index._database = Counting(index._database, "")
    queries = np.random.default_rng(3).standard_normal((600, DIM)).astype(np.float32)
    hits = index.search(queries, 3)
    assert asked == [(256, 3), (256, 3), (88, 3)]
    assert (hits.rows == Exact().build(VECTORS).search(queries, 3).rows).mean() > 0.95
    asked.clear()
    half = np.arange(SIZE) % 2 > 0
    assert half[index.search(USERS, 10, half).rows].all()
    assert asked == [(5, 26)]  # 10 · 1.3 / 0.5


@pytest.fixture(scope="module")
def plain(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release with an exact index."""
    return next(tmp_path_factory.getbasetemp().glob(f"releases*/{release.id}"))


def put_release(plain: Path, root: Path, id: str, index: IndexSpec) -> None:
    """A release as `publish` leaves it, of the towers and vectors of another, and live."""
    shutil.copytree(plain, root / id)
    (root / id / "index.bin").unlink()
    index.build(np.load(plain / "vectors.npy")).save(root / id / "index.bin")
    manifest = json.loads((plain / "manifest.json").read_text())
    manifest |= {"id": id, "index": spec.used_table(index, "zhiyin.indexes"), "files": checksums(root / id)}
    manifest["digest"] = manifest_digest(manifest)
    (root / id / "manifest.json").write_bytes(written(manifest))
    Releases(root).swap(id)
    Releases(root).follow(id)


class Down:
    """A server of its own that is taken away and given back, with what it held."""

    def __init__(self, spec: Spec, stop: Callable[[], None], start: Callable[[], None]) -> None:
        self.spec, self.stop, self.start = spec, stop, start


@pytest.fixture(params=["Milvus", "Qdrant"])
def down(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    milvus_server: "MilvusServer",
    qdrant_server: "QdrantServer",
) -> Iterator[Down]:
    if request.param == "Milvus":
        milvus = type(milvus_server)(tmp_path / "milvus")
        yield Down(Milvus(uri=milvus.uri, m=16, ef_construction=64, timeout=1.0), milvus.kill, milvus.start)
        milvus.kill()
    else:
        qdrant = type(qdrant_server)()
        yield Down(Qdrant(uri=qdrant.uri, timeout=1.0), qdrant.stop, qdrant.start)
        qdrant.stop()


AWAY = r"at http://127\.0\.0\.1:\d+: cannot be reached, or did not answer within 1 s .*searches go on when it is back"


def test_searches_go_on_when_the_server_is_back(down: Down, tmp_path: Path) -> None:
    patient = replace(down.spec, timeout=20.0)
    index = patient.build(VECTORS)
    index.save(tmp_path / "index.bin")
    hasty = down.spec.load(tmp_path / "index.bin", VECTORS)
    before = hasty.search(USERS, 10)
    down.stop()
    with ThreadPoolExecutor(4) as pool:
        for error in pool.map(lambda _: caught(lambda: hasty.search(USERS, 10)), range(4)):
            assert isinstance(error, SearchError)
            with pytest.raises(SearchError, match=AWAY):
                raise error
    for act in (
        lambda: down.spec.load(tmp_path / "index.bin", VECTORS),
        lambda: down.spec.build(VECTORS),
        lambda: down.spec.went_live(tmp_path / "index.bin"),
        lambda: down.spec.retire(tmp_path / "index.bin"),
    ):
        with pytest.raises(SearchError, match="cannot be reached, or did not answer within"):
            act()
    few = np.arange(SIZE) < 5
    assert (np.sort(hasty.search(USERS, 5, few).rows) == np.arange(5)).all()
    down.start()
    for one in (index, patient.load(tmp_path / "index.bin", VECTORS)):
        assert (one.search(USERS, 10).rows == before.rows).all()
    deadline = time.monotonic() + 60
    while caught(lambda: hasty.search(USERS, 10)) is not None:
        assert time.monotonic() < deadline
    assert (hasty.search(USERS, 10).rows == before.rows).all()


def caught(act: Callable[[], Any]) -> Exception | None:
    try:
        act()
    except SearchError as error:
        return error
    return None


def test_while_one_call_tries_to_connect_the_others_wait_and_fail_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the last of many threads would wait as often as there are threads."""
    waiting, tried = threading.Semaphore(0), []

    def counted(*arguments: Any) -> str:
        waiting.release()
        return ""

    def refusing(*arguments: Any, **named: Any) -> None:
        tried.append(arguments)
        for _ in range(4):
            assert waiting.acquire(timeout=60)
        raise MilvusException(2, "Fail connecting")

    monkeypatch.setattr("zhiyin.indexes.milvus.token", counted)
    monkeypatch.setattr("pymilvus.MilvusClient", refusing)
    there = MilvusDatabase(Milvus(uri="http://127.0.0.1:1"))
    with ThreadPoolExecutor(4) as pool:
        errors = list(pool.map(lambda _: caught(there.collections), range(4)))
    assert [type(error) for error in errors] == [SearchError] * 4
    assert len(tried) == 1


def test_a_server_that_comes_back_with_another_collection_of_that_name_is_not_believed(
    qdrant_server: "QdrantServer", tmp_path: Path
) -> None:
    own_server = type(qdrant_server)()
    spec = Qdrant(uri=own_server.uri)
    try:
        collection = put(spec, tmp_path / "index.bin")
        index = spec.load(tmp_path / "index.bin", VECTORS)
        own_server.stop()
        with pytest.raises(SearchError, match="cannot be reached"):
            index.search(USERS, 5)
        own_server.start()
        engine: Any = own_server.engine
        engine.delete_collection(collection)
        engine.create_collection(collection, models.VectorParams(size=DIM, distance=models.Distance.DOT))
        with pytest.raises(SearchError, match="is not this release's"):
            index.search(USERS, 5)
    finally:
        own_server.stop()


@pytest.mark.parametrize("kind", [Milvus, Qdrant])
def test_a_server_that_never_answers_costs_the_timeout(kind: type[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        spec = kind(uri=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=1.0)
        started = time.monotonic()
        with pytest.raises(SearchError, match="cannot be reached, or did not answer within 1 s"):
            spec.build(VECTORS)
        assert time.monotonic() - started < 30  # and not a build's ten minutes


def test_over_http_a_server_that_is_away_is_a_503_in_words_until_it_is_back(
    down: Down, plain: Path, tmp_path: Path
) -> None:
    put_release(plain, tmp_path / "releases", "20260101-000000-aaaa", replace(down.spec, timeout=10.0))
    with (
        Live(Releases(tmp_path / "releases")) as live,
        running(create(live, Memory().open(), Service())) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        asked = {"events": [{"item_id": "i9"}], "k": 5}
        before = client.post("/v1/retrieve", json=asked)
        assert (before.status_code, before.json()["channel"]) == (200, "deep")
        down.stop()
        refused = client.post("/v1/retrieve", json=asked)
        assert refused.status_code == 503
        assert refused.json()["error"]["message"].startswith("cannot be reached, or did not answer within 10 s")
        assert "searches go on when it is back" in refused.text
        assert client.post("/v1/retrieve", json={"k": 5}).json()["channel"] == "popular"
        down.start()
        again = client.post("/v1/retrieve", json=asked)
        assert again.json()["candidates"] == before.json()["candidates"]


def test_the_alias_follows_the_live_release_and_prune_takes_the_collections(
    hosted_spec: Spec, plain: Path, tmp_path: Path
) -> None:
    there, name, releases = server(hosted_spec), hosted_spec.name, Releases(tmp_path)
    foreign = f"{name}_20200101_000000_deadbeef"
    foreign_collection(hosted_spec, foreign)
    ids = [f"2026010{day}-000000-aaaa" for day in (1, 2, 3)]
    collections = {}
    for id in ids[:2]:
        put_release(plain, tmp_path, id, hosted_spec)
        collections[id] = Receipt.read(tmp_path / id / "index.bin", there.kind).collection
        assert there.aliased(name) == collections[id]
        opened = releases.open()
        assert opened.index.search(USERS_16, 3).rows.tolist() == exact_rows(plain).tolist()
    assert releases.roll_back() == ids[0]
    assert there.aliased(name) == collections[ids[0]]
    releases.point(ids[1])
    assert there.aliased(name) == collections[ids[1]]
    put_release(plain, tmp_path, ids[2], Exact())
    assert there.aliased(name) == collections[ids[1]]  # nothing of the new one is there
    assert own(hosted_spec) == sorted([foreign, *collections.values()])
    assert releases.prune(2) == [ids[0]]
    assert own(hosted_spec) == sorted([foreign, collections[ids[1]]])
    assert releases.prune(1) == [], "it is in use"
    del opened
    assert releases.prune(1) == [ids[1]]
    assert (own(hosted_spec), there.aliased(name)) == ([foreign], "")


USERS_16 = np.random.default_rng(4).standard_normal((5, 16)).astype(np.float32)


def exact_rows(plain: Path) -> Any:
    return Exact().build(np.load(plain / "vectors.npy")).search(USERS_16, 3).rows


def test_a_release_whose_alias_cannot_follow_is_live_and_says_so(
    hosted_spec: Spec, plain: Path, tmp_path: Path
) -> None:
    theirs, id = f"{hosted_spec.name}_theirs", "20260101-000000-aaaa"
    foreign_collection(hosted_spec, theirs)
    server(hosted_spec).point(hosted_spec.name, theirs)
    said = rf"'{id}' is live, but the alias of its index did not follow \(.*zhiyin rollback RECIPE --to {id}"
    with pytest.raises(ReleaseError, match=said):
        put_release(plain, tmp_path, id, hosted_spec)
    assert Releases(tmp_path).current() == id
    Releases(tmp_path).open()
    server(hosted_spec).unpoint(hosted_spec.name)
    Releases(tmp_path).point(id)
    assert server(hosted_spec).aliased(hosted_spec.name).startswith(f"{hosted_spec.name}_2")


def test_a_publish_that_is_refused_leaves_no_collection(
    hosted: Callable[[IndexSpec], IndexSpec], published: "Publisher", tmp_path: Path
) -> None:
    placed = hosted(Qdrant(name=f"n{uuid.uuid4().hex}"))
    assert isinstance(placed, Qdrant)
    with pytest.raises(ReleaseError, match=r"the index finds .* expected at least 2"):
        published(tmp_path, "20260104-000000-aaaa", index=placed, overlap=2)
    assert (own(placed), [path for path in tmp_path.iterdir() if path.suffix != ".lock"]) == ([], [])


def test_a_prune_that_cannot_reach_the_server_is_finished_by_the_next(down: Down, plain: Path, tmp_path: Path) -> None:
    root, patient = tmp_path / "releases", replace(down.spec, timeout=20.0)
    put_release(plain, root, "20260101-000000-aaaa", patient)
    put_release(plain, root, "20260102-000000-aaaa", Exact())
    down.stop()
    with pytest.raises(SearchError, match="cannot be reached"):
        Releases(root).prune(1)
    assert Releases(root).ids() == ["20260101-000000-aaaa", "20260102-000000-aaaa"]
    down.start()
    assert Releases(root).prune(1) == ["20260101-000000-aaaa"]
    assert own(patient) == []


@pytest.mark.parametrize("kind", ["FLAT", "IVF_FLAT", "IVF_SQ8"])
def test_every_kind_of_milvus_finds_what_there_is_and_scores_it_truly(
    kind: Any, hosted: Callable[[IndexSpec], IndexSpec]
) -> None:
    placed = hosted(Milvus(name=f"n{uuid.uuid4().hex}", kind=kind, nlist=4, nprobe=4))
    hits, wanted = placed.build(VECTORS).search(USERS, 10), Exact().build(VECTORS).search(USERS, 10)
    assert np.mean([np.isin(row, found).mean() for row, found in zip(wanted.rows, hits.rows, strict=True)]) >= 0.9
    for query, rows, scores in zip(USERS, hits.rows, hits.scores, strict=True):
        np.testing.assert_allclose(scores, VECTORS[rows] @ query, rtol=1e-6)
    assert hits.rows.min() > UNKNOWN


def test_the_kinds_parameters_are_those_of_the_spec(hosted: Callable[[IndexSpec], IndexSpec]) -> None:
    placed = hosted(Milvus(name=f"n{uuid.uuid4().hex}", m=7, ef_construction=33, ef_search=50))
    assert isinstance(placed, Milvus)
    asked: list[Any] = []
    real, create = MilvusClient.search, MilvusClient.create_index

    def making(self: Any, collection: str, wanted: Any, **named: Any) -> Any:
        made.extend(one.get_index_configs() for one in wanted)
        return create(self, collection, wanted, **named)

    def recorded(self: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(named["search_params"]["params"])
        return real(self, *arguments, **named)

    made: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MilvusClient, "create_index", making)
        index = placed.build(VECTORS)
    assert made == [{"index_type": "HNSW", "metric_type": "IP", "params": {"M": 7, "efConstruction": 33}}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MilvusClient, "search", recorded)
        index.search(USERS, 10)
        index.search(USERS, 90)
    assert asked == [{"ef": 50}, {"ef": 90}]


def test_shards_and_replicas_are_asked_for(
    hosted: Callable[[IndexSpec], IndexSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    for verb in ("create_collection", "load_collection"):
        real = getattr(MilvusClient, verb)

        def recorded(self: Any, *arguments: Any, _real: Any = real, **named: Any) -> Any:
            asked.update({key: named[key] for key in ("num_shards", "replica_number") if key in named})
            return _real(self, *arguments, **named)

        monkeypatch.setattr(MilvusClient, verb, recorded)
    hosted(Milvus(name=f"n{uuid.uuid4().hex}", shards=3, replicas=2)).build(VECTORS)
    assert asked == {"num_shards": 3, "replica_number": 2}


def test_qdrant_is_told_what_the_spec_says(qdrant_server: "QdrantServer") -> None:
    name = f"n{uuid.uuid4().hex}"
    spec = Qdrant(
        uri=qdrant_server.uri, name=name, m=7, ef_construction=33, ef_search=50, on_disk=True, shards=3, replicas=2
    )
    index = spec.build(VECTORS)
    index.search(USERS, 10)
    index.search(USERS, 90)
    (collection,) = own(spec)
    bodies = [(method, body) for method, path, body in qdrant_server.bodies if path.endswith(collection)]
    made = next(body for method, body in bodies if method == "PUT")
    assert made["hnsw_config"] == {"m": 7, "ef_construct": 33, "on_disk": True}
    assert (made["vectors"]["distance"], made["vectors"]["size"], made["vectors"]["on_disk"]) == ("Dot", DIM, True)
    assert (made["shard_number"], made["replication_factor"]) == (3, 2)
    asked = [body for _, path, body in qdrant_server.bodies if path == f"/collections/{collection}/points/query/batch"]
    assert [{one["params"]["hnsw_ef"] for one in body["searches"]} for body in asked] == [{50}, {90}]


def test_the_engines_in_this_process_need_no_server(tmp_path: Path) -> None:
    name = f"n{uuid.uuid4().hex}"
    wanted = Exact().build(VECTORS).search(USERS, 10)
    for spec_, vectors in ((Qdrant(uri=":memory:", name=name), VECTORS), (Milvus(path=tmp_path / "a.db"), VECTORS)):
        index = replace(spec_, timeout=20.0).build(vectors)
        assert (index.search(USERS, 10).rows == wanted.rows).mean() > 0.9
        index.save(tmp_path / type(spec_).__name__)
        opened = replace(spec_, timeout=20.0).load(tmp_path / type(spec_).__name__, vectors)
        assert (opened.search(USERS, 10).rows == index.search(USERS, 10).rows).all()


def test_a_token_comes_from_the_environment_or_a_file_and_stands_in_no_release(
    qdrant_server: "QdrantServer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = type(qdrant_server)()
    guarded.key = "open sesame"
    plain = Qdrant(uri=guarded.uri)
    try:
        with pytest.raises(SearchError, match="it lets nobody in with this API key. Set token_env or token_file"):
            plain.build(VECTORS)
        with pytest.raises(SearchError, match="the environment variable NO_SUCH is not set"):
            spec.build(Qdrant, {"uri": guarded.uri, "token_env": "NO_SUCH"}).build(VECTORS)
        with pytest.raises(SearchError, match="the token file .*none cannot be read .No such file"):
            replace(plain, token_file=tmp_path / "none").build(VECTORS)
        (tmp_path / "token").write_text("open sesame\n")
        monkeypatch.setenv("THE_TOKEN", "open sesame")
        for spec_ in (
            spec.build(Qdrant, {"uri": guarded.uri, "token_env": "THE_TOKEN"}),
            replace(plain, token_file=tmp_path / "token"),
        ):
            with (
                pytest.warns(UserWarning, match="insecure connection") if spec_.token_env else contextlib.nullcontext()
            ):
                index = spec_.build(VECTORS)
            assert len(index.search(USERS, 3).rows) == 5
            assert "sesame" not in json.dumps(spec.used_table(spec_, "zhiyin.indexes"))
    finally:
        guarded.stop()


@pytest.mark.parametrize(
    ("kind", "table", "said"),
    [
        (Milvus, {"uri": "localhost:19530"}, r'\.uri: .*expected "http://HOST:PORT"'),
        (Qdrant, {"uri": "http://me:secret@host:1"}, r"\.uri: 'host:1'.*A token belongs into token_env"),
        (Milvus, {"path": Path("a")}, r"\.path: 'a'; expected a name that ends in \"\.db\""),
        (Milvus, {"name": "my-index"}, r"\.name: 'my-index'; expected letters, digits and _"),
        (Qdrant, {"name": "2nd"}, r"\.name: '2nd'"),
        (Qdrant, {"name": "名"}, r"\.name"),
        (Milvus, {"kind": "HSNW"}, r"kind: 'HSNW' \(did you mean 'HNSW'\?\)"),
        (Milvus, {"m": 0}, "m = 0.*each at least 1"),
        (Qdrant, {"shards": 0}, "shards = 0.*each at least 1"),
        (Milvus, {"nprobe": 0}, "nprobe = 0"),
        (Milvus, {"timeout": 0.0}, "timeout = 0"),
        (Qdrant, {"build_seconds": float("inf")}, "build_seconds = inf; expected seconds"),
        (Milvus, {"token_env": "A", "token_file": "b"}, r"\.token_file: a token from two places"),
        (Qdrant, {"token_env": "A", "token_file": "b"}, r"\.token_file: a token from two places"),
        (Qdrant, {"token": "sesame"}, r"unknown key 'token' \(did you mean 'token_"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(kind: type[Any], table: dict[str, Any], said: str) -> None:
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in table.items()}
    with pytest.raises(SpecError, match=said):
        spec.build(kind, plain)


def test_paths_in_a_recipe_are_relative_to_it_and_absolute_in_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"use": "milvus:Milvus", "path": "kept.db", "token_file": "secret"}
    recipe = Recipe.of({"data": {"events": "log.csv"}, "index": table}, Path("sub/recipe.toml"))
    assert recipe.index == Milvus(path=tmp_path / "sub" / "kept.db", token_file=tmp_path / "sub" / "secret")


def test_tuning_tries_no_database() -> None:
    assert not any(isinstance(one(), HostedSpec) for one in tune.FAMILIES)
    assert all(isinstance(one, HostedSpec) for one in SPECS)


WITHOUT = """
import sys
sys.modules["pymilvus"] = sys.modules["qdrant_client"] = None
import numpy as np
from zhiyin import spec
from zhiyin.indexes.milvus import Milvus
from zhiyin.indexes.qdrant import Qdrant
print({("milvus", "Milvus"), ("qdrant", "Qdrant")} <= set(spec.choices("zhiyin.indexes")))
for one in (Milvus(), Qdrant()):
    try:
        one.build(np.ones((2, 2), np.float32))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_without_the_packages_it_says_how_to_get_them() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    there, milvus, qdrant = done.stdout.splitlines()
    assert there == "True"
    assert milvus == (
        "SearchError indexes.milvus: Milvus needs the package 'pymilvus', which is not installed. "
        "pip install 'zhiyin[milvus]', or choose another index."
    )
    assert "needs the package 'qdrant-client', which is not installed. pip install 'zhiyin[qdrant]'" in qdrant
