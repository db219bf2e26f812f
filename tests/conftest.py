"""What several test files stand on: a tiny log, a release of an untrained model on it, releases without a publish, and
real servers."""

import contextlib
import functools
import gc
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
import pytest
import redis
import torch
from hypothesis import settings
from qdrant_client import QdrantClient
from qdrant_client.http import models
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from torch.onnx._internal.exporter._registration import ONNXRegistry

from zhiyin import signing
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.features.time import ExampleAge, Hour
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.milvus import Milvus
from zhiyin.indexes.qdrant import Qdrant
from zhiyin.learning.examples import Examples
from zhiyin.manifest import manifest_digest, signed_part, written
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.places.base import MANIFEST
from zhiyin.publish import Promise, publish
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.stores.base import StoreSpec
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.redis import Redis

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def exporter_reads_its_operators_once() -> Iterator[None]:
    """torch's exporter parses the source of its 500 operators for every tower, and they are the same each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


USERS, ITEMS, EVENTS_PER_USER = 40, 60, 12
START = 1_700_000_000_000

SCHEMA = Schema(
    user=(Categorical("country", dim=3), Numeric("age")),
    item=(Bag("tags", dim=4, length=3),),
    event=(Numeric("stars"),),
    context=(Hour("hour", "time"), ExampleAge("example_age", "age")),
    history_length=8,
)


@pytest.fixture(scope="session")
def data() -> Prepared:
    """40 users, 60 items, 12 events each, two of them in the same millisecond; profiles, tags, stars and a clock."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), EVENTS_PER_USER).astype(np.int32)
    items = np.concatenate([random.permutation(ITEMS)[:EVENTS_PER_USER] for _ in range(USERS)]).astype(np.int32)
    times = START + np.tile(np.arange(EVENTS_PER_USER) // 2, USERS) * 3_600_000 + users
    return Prepared(
        users=Vocabulary.of(f"u{row}" for row in range(USERS)),
        items=Vocabulary.of(f"i{row}" for row in range(ITEMS)),
        events=EventLog.of(
            users, items, times, user_count=USERS, columns=Table.of({"stars": random.integers(1, 6, len(users))})
        ),
        user_table=Table.of({"country": ["cn", "fr"] * (USERS // 2), "age": list(range(20, 20 + USERS))}),
        item_table=Table.of(
            {
                "title": [f"title {row}" for row in range(ITEMS)],
                "tags": [["a", "b"] if row % 2 else ["c"] for row in range(ITEMS)],
            }
        ),
    )


@pytest.fixture(scope="session")
def split(data: Prepared) -> Split:
    return LeaveLastOut().split(data.events, data.clock)


@pytest.fixture(scope="session")
def examples(data: Prepared, split: Split) -> Examples:
    return Examples(data, SCHEMA.fit(data, split), end=split.end, device=torch.device("cpu"))


Publisher = Callable[..., Release]


@pytest.fixture(scope="session")
def published(data: Prepared, split: Split, examples: Examples) -> Publisher:
    """published(root, id, seed=0, index=Exact()): a release of an untrained YouTubeDNN, whose seed is all its taste;
    its weights times `scale`. A tower is traced once for its seed and scale, and every publish proves it anew."""
    traced: dict[tuple[Any, ...], Any] = {}
    export = torch.onnx.export

    def make(
        root: Path | Releases,
        id: str,
        seed: int = 0,
        index: IndexSpec | Auto = Exact(),
        overlap: float = 0.5,
        scale: float = 1.0,
    ) -> Release:
        torch.manual_seed(seed)
        model = YouTubeDNN(dim=16, hidden=(32,)).build(examples.schema, len(data.items))
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(scale)

        def once(tower: Any, inputs: Any, **options: Any) -> Any:
            key = (seed, scale, *options["input_names"])
            if key not in traced:
                traced[key] = export(tower, inputs, **options)
            return traced[key]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.onnx, "export", once)
            return publish(
                model,
                examples.schema,
                data,
                sample=examples.queries(split.test.starts),
                popular=np.arange(ITEMS, dtype=np.int32),
                index=index,
                root=root,
                id=id,
                facts={"created": "2026-01-01T00:00:00+00:00", "metrics": {}},
                promise=Promise(overlap=overlap, k=10),
            )

    return make


@pytest.fixture(scope="session")
def release(published: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return published(tmp_path_factory.mktemp("releases"), "20260101-000000-aaaa")


class RedisServer:
    """A redis-server of our own on free loopback ports, which keeps all it said it kept; `words`: its settings."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words = folder, words
        self.port, self.bus = free_ports(2)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens, and has read what it had kept."""
        program = shutil.which("redis-server")
        assert program, "redis-server is not here: make test installs it, CONTRIBUTING.md says how"
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        kept = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--cluster-port", str(self.bus)]
        replicas = ["--repl-ping-replica-period", "1"]
        self.process = subprocess.Popen([program, *where, *kept, *replicas, *self.words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, f"redis-server ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.01)

    def _answers(self) -> bool:
        if not listens(self.port):
            return False
        try:
            with self.client(retry=Retry(NoBackoff(), 0)) as client:
                client.ping()
        except redis.AuthenticationError:  # it wants a password, and so it is there
            return True
        except redis.ConnectionError:  # it is still reading
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2, **options)

    def followed(self, replicas: int) -> bool:
        """Whether it has so many replicas, and they said that they have what it sent them, were it only the ping of
        every second. They think themselves linked up before; a `WAIT` between the two waits for nobody."""
        with self.client() as client:
            told = cast(Any, client).info("replication")
        known = [told.get(f"slave{at}", {}) for at in range(replicas)]
        return all(one.get("state") == "online" and one["offset"] > 0 for one in known)


class RedisCluster:
    """Three masters, each with a third of the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[RedisServer] = []
        words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")
        for name in "abc":
            (folder / name).mkdir()
            self.nodes.append(RedisServer(folder / name, *words))
        for at, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
                last = 16383 if at == 2 else 5461 * (at + 1) - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", 5461 * at, last)
                first = self.nodes[0]
                client.execute_command("CLUSTER MEET", "127.0.0.1", first.port, first.bus)
        self.wait()

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(node.address for node in self.nodes)

    def wait(self) -> None:
        """Until every node knows of all, and says that all is well."""
        deadline = time.monotonic() + 60
        for node in self.nodes:
            with node.client() as client:
                while not self._knows_all(client):
                    assert time.monotonic() < deadline, "the nodes do not find each other"
                    time.sleep(0.05)

    def _knows_all(self, client: redis.Redis) -> bool:
        state, slots = (cast(Any, client).execute_command(f"CLUSTER {word}") for word in ("INFO", "SLOTS"))
        return state["cluster_state"] == "ok" and len(slots) == len(self.nodes)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as held:
        listening = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in listening]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.kill()


@pytest.fixture
def replicated(tmp_path: Path, redis_cluster: RedisCluster) -> Iterator[tuple[RedisCluster, RedisServer]]:
    """A Cluster of its own, and a replica of its second master."""
    cluster = type(redis_cluster)(tmp_path)
    (tmp_path / "replica").mkdir()
    master = cluster.nodes[1]
    replica = type(master)(tmp_path / "replica", *master.words)
    with replica.client() as client, master.client() as other:
        asked: Any = client
        id = cast(Any, other).execute_command("CLUSTER MYID").decode()
        asked.config_set("cluster-node-timeout", 1000)  # how soon a master is taken for dead
        for node in cluster.nodes:
            asked.execute_command("CLUSTER MEET", "127.0.0.1", node.port, node.bus)
        wait_until(lambda: replicates(asked, id))
        wait_until(lambda: master.followed(1))
    for node in cluster.nodes:
        with node.client() as client:
            client.config_set("cluster-node-timeout", 1000)
            wait_until(lambda: replicas(client, id) == [replica.address])
    yield cluster, replica
    cluster.kill()
    replica.kill()


class RedisSentinels:
    """A master `main`, two replicas, and three Sentinels of which two must agree; they look ten times a second, and
    take a server that is silent for 0.3 s for gone. `servers`: the master first."""

    def __init__(self, folder: Path, server: type[RedisServer]) -> None:
        for name in ("a", "b", "c"):
            (folder / name).mkdir()
        words = ("--repl-diskless-sync-delay", "0")
        master = server(folder / "a", *words)
        self.servers = [master]
        self.servers += [server(folder / name, *words, "--replicaof", f"127.0.0.1 {master.port}") for name in "bc"]
        self.ports, self.processes = free_ports(3), []
        for at, port in enumerate(self.ports):
            settings = folder / f"sentinel-{at}.conf"
            settings.write_text("\n".join(self._settings(at, port)))
            command = ["redis-server", str(settings), "--sentinel"]
            self.processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    def wait(self) -> None:
        """Until the master counts its replicas, and every Sentinel knows of all and says that all is well."""
        wait_until(lambda: self.servers[0].followed(2))
        for port in self.ports:
            wait_until(lambda port=port: listens(port))  # type: ignore[misc]
            with redis.Redis(port=port, protocol=2) as client:
                periods = ("info", "ping", "ask", "publish")
                client.execute_command("SENTINEL DEBUG", *(word for one in periods for word in (f"{one}-period", 100)))
                wait_until(lambda client=client: self._agrees(client))  # type: ignore[misc]

    def _settings(self, at: int, port: int) -> Iterator[str]:
        yield f"port {port}\nbind 127.0.0.1\nsentinel myid {at:040x}"
        yield f"sentinel monitor main 127.0.0.1 {self.servers[0].port} 2"
        yield "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 1000"
        for one in self.servers[1:]:
            yield f"sentinel known-replica main 127.0.0.1 {one.port}"
        for other, there in enumerate(self.ports):
            if other != at:
                yield f"sentinel known-sentinel main 127.0.0.1 {there} {other:040x}"
        yield ""

    def _agrees(self, client: Any) -> bool:
        """Whether this Sentinel knows of all, and all are well."""
        told = client.sentinel_master("main")
        known = (told["num-slaves"], told["num-other-sentinels"], told["flags"])
        well = [one["flags"] == "slave" and one["master-link-status"] == "ok" for one in client.sentinel_slaves("main")]
        return known == (2, 2, "master") and all(well)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in self.ports)

    def master(self) -> int:
        """The port of the master, as the first Sentinel has it."""
        with redis.Redis(port=self.ports[0], protocol=2) as client:
            return int(cast(Any, client).sentinel_get_master_addr_by_name("main")[1])

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for one in self.servers:
            one.kill()


@pytest.fixture
def watched(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisSentinels]:
    """Servers that Sentinels watch."""
    (tmp_path / "watched").mkdir()
    sentinels = RedisSentinels(tmp_path / "watched", type(redis_server))
    try:
        sentinels.wait()
        yield sentinels
    finally:
        sentinels.kill()


def replicas(client: Any, id: str) -> list[str]:
    """The addresses of a master's replicas, as a node knows them."""
    known = client.execute_command("CLUSTER NODES")
    return [address for address, node in known.items() if node["master_id"] == id]


def replicates(client: Any, id: str) -> bool:
    """Whether the node agrees to be that one's replica: it must have heard that it is a master."""
    try:
        client.execute_command("CLUSTER REPLICATE", id)
    except redis.ResponseError:
        return False
    return True


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for what will be; the limit only ends a test that has failed."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Turns:
    """How often a connection turned from sending to waiting: what each call costs over a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        connection: Any = Connection
        send, read = connection.send_packed_command, connection.read_response

        def sending(connection: Any, *words: Any, **options: Any) -> Any:
            self.steps.append("send")
            return send(connection, *words, **options)

        def reading(connection: Any, *words: Any, **options: Any) -> Any:
            self.steps.append("read")
            return read(connection, *words, **options)

        monkeypatch.setattr(Connection, "send_packed_command", sending)
        monkeypatch.setattr(Connection, "read_response", reading)

    def of(self, call: Callable[[], object]) -> tuple[int, int]:
        """(round trips, writes to any node) of a call."""
        self.steps.clear()
        call()
        trips = sum(pair == ("send", "read") for pair in zip(self.steps, self.steps[1:], strict=False))
        return trips, self.steps.count("send")


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """What each call to a Redis costs from now on."""
    return Turns(monkeypatch)


@pytest.fixture
def placed(request: pytest.FixtureRequest) -> Callable[[StoreSpec, Path], StoreSpec]:
    """placed(example, folder): the example where a test may keep things: in `folder`, or on a server of ours, under a
    prefix of its own."""

    def place(example: StoreSpec, folder: Path) -> StoreSpec:
        if isinstance(example, LMDB):
            return replace(example, path=folder / "store", map_gb=0.01)
        if not isinstance(example, Redis):
            return example
        prefix = f"{uuid.uuid4().hex}:"
        if example.cluster:
            return replace(example, cluster=request.getfixturevalue("redis_cluster").addresses, prefix=prefix)
        return replace(example, port=request.getfixturevalue("redis_server").port, prefix=prefix)

    return place


@pytest.fixture(scope="session")
def two_published(published: Callable[..., Release], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two releases are, 20260101-000000-aaaa live and 20260102-000000-bbbb newer. Not to be changed."""
    root = tmp_path_factory.mktemp("two") / "releases"
    published(root, "20260101-000000-aaaa", seed=1)
    published(root, "20260102-000000-bbbb", seed=2)
    Releases(root).roll_back()
    return root


@pytest.fixture
def releases(two_published: Path, tmp_path: Path) -> Releases:
    """A copy of them."""
    return Releases(Path(shutil.copytree(two_published, tmp_path / "releases")))


PATIENT_MILVUS = """
import grpc
real = grpc.server
patient = [("grpc.http2.min_ping_interval_without_data_ms", 5000), ("grpc.keepalive_permit_without_calls", 1)]
grpc.server = lambda pool, options: real(pool, options=[*options, *patient])
from milvus_lite.cmdline import main
main()
"""
"""Milvus Lite that allows as many pings as a Milvus server does: its client sends one every ten seconds."""


class MilvusServer:
    """Milvus Lite as a process of its own, on a free loopback port; it keeps its data when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, (self.port,) = folder, free_ports(1)
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it listens."""
        words = ["server", "--data-dir", str(self.folder), "--host", "127.0.0.1", "--port", str(self.port)]
        kept = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PATIENT_MILVUS, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=kept,
        )
        deadline = time.monotonic() + 60
        while not listens(self.port):
            assert self.process.poll() is None, f"Milvus Lite ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "Milvus Lite does not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class QdrantServer:
    """Qdrant's REST interface, as its client speaks it, before the engine that the client brings: no server of Qdrant's
    own can be installed by a package manager. `stop` and `start` keep the data; `bodies`: what came, by path."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.engine, self.gate, self.key = QdrantClient(":memory:"), threading.Lock(), ""
        self.bodies: list[tuple[str, str, Any]] = []
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                status, told = outer.answer(
                    self.command, self.path, self.rfile.read(length), self.headers.get("api-key") or ""
                )
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 – the names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, method: str, path: str, body: bytes, key: str) -> tuple[int, Any]:
        where = urllib.parse.urlsplit(path).path
        told = json.loads(body) if body else None
        self.bodies.append((method, where, told))
        if key != self.key:
            return 401, {"status": {"error": "Must provide an API key"}}
        try:
            with self.gate:
                result = self._answer(method, where, told)
        except ValueError as error:
            return (404 if "not found" in str(error) else 400), {"status": {"error": str(error)}}
        plain = result.model_dump(mode="json") if hasattr(result, "model_dump") else result
        return 200, {"result": plain, "status": "ok", "time": 0.0}

    def _answer(self, method: str, where: str, told: Any) -> Any:
        engine: Any = self.engine
        if (method, where) == ("GET", "/collections"):
            return engine.get_collections()
        if (method, where) == ("GET", "/aliases"):
            return engine.get_aliases()
        if (method, where) == ("POST", "/collections/aliases"):
            steps = models.ChangeAliasesOperation.model_validate(told).actions
            return engine.update_collection_aliases(steps)
        found = re.fullmatch(r"/collections/(\w+)(/.*)?", where)
        assert found, where
        name, rest = found[1], found[2] or ""
        if rest == "/exists":
            return {"exists": engine.collection_exists(name)}
        if rest == "/points":
            batch = models.PointsBatch.model_validate(told).batch
            return engine.upsert(name, batch)
        if rest == "/points/count":
            return engine.count(name, exact=True)
        if rest == "/points/query/batch":
            asked = models.QueryRequestBatch.model_validate(told).searches
            found_points = engine.query_batch_points(name, [one.model_copy(update={"params": None}) for one in asked])
            return [one.model_dump(mode="json") for one in found_points]
        if method == "GET":
            return engine.get_collection(name)
        if method == "DELETE":
            return engine.delete_collection(name)
        made = models.CreateCollection.model_validate(told) if method == "PUT" else None
        if made is None:
            return engine.update_collection(name, metadata=told["metadata"])
        return engine.create_collection(name, made.vectors, metadata=made.metadata)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def qdrant_server() -> Iterator[QdrantServer]:
    server = QdrantServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def hosted(request: pytest.FixtureRequest) -> Callable[[IndexSpec], IndexSpec]:
    """hosted(example): the example itself, or on a server of ours where it lives in one."""

    def place(example: IndexSpec) -> IndexSpec:
        if isinstance(example, Milvus):
            return replace(example, uri=request.getfixturevalue("milvus_server").uri, timeout=20.0)
        if isinstance(example, Qdrant):
            return replace(example, uri=request.getfixturevalue("qdrant_server").uri, timeout=20.0)
        return example

    return place


GOLDEN = Path(__file__).parent / "golden" / "format-2" / "20260101-000000-0001"

Add = Callable[[Releases, str], None]


def build(folder: Path, id: str, key: Path | None = None) -> None:
    """A whole release in an empty folder."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"id": id}
    if key:
        manifest["signature"] = signing.sign(signed_part(manifest), key)
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_bytes(written(manifest))


@pytest.fixture(scope="session")
def whole() -> Callable[[Path, str], None]:
    """whole(folder, id): a release there, whole and unsigned, which nobody published."""
    return build


@pytest.fixture(scope="session")
def add() -> Add:
    """add(releases, id): publish a release, signed with the key of `releases`."""

    def add(releases: Releases, id: str) -> None:
        with releases.publishing(id) as building:
            build(building.folder, id, releases.sign)
            building.go_live()

    return add


class S3:
    """A moto server of our own on a free loopback port, with an empty bucket."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when there is a bucket. A server that was killed has forgotten all."""
        with (self.folder / "log").open("ab") as log:
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
                return
            except Exception:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "moto does not answer"
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The server; s3fs finds it by the environment, as a user's would."""
    (port,) = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setitem(os.environ, name, value)
        server = S3(tmp_path_factory.mktemp("s3"), port)
        yield server
        server.kill()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours.key, ours.pub, theirs.key, theirs.pub; rsa.key, rsa.pub"""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("ours", "ed25519"), ("theirs", "ed25519"), ("rsa", "rsa")):
        for line in (f"genpkey -algorithm {kind} -out {name}.key", f"pkey -in {name}.key -pubout -out {name}.pub"):
            subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
    return folder


KINDS = ("folder", "memory", "s3")


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Releases]:
    """there(): releases at one place of each kind; each call is another machine that shares it."""
    where = uuid.uuid4().hex
    if request.param == "folder":
        return lambda: Releases(tmp_path / "shared")
    if request.param == "s3":
        request.getfixturevalue("s3")
    base = {"memory": "memory://", "s3": "s3://bucket/"}[request.param]
    return lambda: Releases(tmp_path / uuid.uuid4().hex, url=f"{base}{where}/releases")
