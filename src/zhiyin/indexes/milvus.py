"""Milvus (Wang et al. 2021, "Milvus: A Purpose-Built Vector Data Management System"), by its own client, pymilvus: for
a catalogue past one machine's memory."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SearchError, SpecError
from zhiyin.indexes import database
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.database import Marker, check_access, check_counts, check_name, check_uri, gone, token
from zhiyin.indexes.hosted import HostedIndex
from zhiyin.indexes.ivf import cell_count, check_cells

ROW, VECTOR, MARKER = "row", "vector", "zhiyin"
"""The fields of a collection, and the property that holds its marker."""

MOST_HITS = 16_384
"""That a Milvus server lets one search fetch."""

MOST_CELLS = 65_536

NOT_FOUND, NOT_LOADED, CONNECT_FAILED = 100, 101, 2
"""Error codes: the collection is not there; it is, but not in memory, as after a restart; and the client's own."""

SELDOM = 3_600_000
"""Milliseconds between two pings of Milvus Lite, which takes more for an attack."""

_clients: dict[tuple[str, str, str], Any] = {}
_failed: dict[tuple[str, str, str], tuple[float, Exception]] = {}
_opening = threading.Lock()


@dataclass(frozen=True, slots=True)
class Milvus:
    """Where the server is, how to be let in, and which of its indexes is built there.

    `path`: instead of a server at `uri`, Milvus Lite in this process, which keeps its data there: a name that ends in
    ".db". `database`: one of the server's databases; "" is its default. A token ("user:password") comes from the
    environment variable `token_env` or the file `token_file`. `name`: begins the name of every collection, and is the
    alias of the live one; no two catalogues of a database may share it. `kind`: FLAT compares with every row; HNSW
    reads `m`, `ef_construction` and `ef_search`, the other two `nlist` (0: 4·√m) and `nprobe`. `shards`, `replicas`:
    of a collection. `timeout`: seconds for one call of a search, `build_seconds` for one call of a build.
    """

    uri: str = "http://127.0.0.1:19530"
    path: Path | None = None
    database: str = ""
    token_env: str = ""
    token_file: Path | None = None
    name: str = "zhiyin"
    kind: Literal["HNSW", "IVF_FLAT", "IVF_SQ8", "FLAT"] = "HNSW"
    m: int = 32
    ef_construction: int = 128
    ef_search: int = 128
    nlist: int = 0
    nprobe: int = 32
    shards: int = 1
    replicas: int = 1
    timeout: float = 2.0
    build_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_name(self.name)
        check_uri(self.uri)
        check_cells(self.nlist, self.nprobe)
        if self.path is not None and self.path.suffix != ".db":
            raise SpecError(f"{str(self.path)!r}", where=".path", expected='a name that ends in ".db"')
        check_access(self.token_env, self.token_file, self.timeout, self.build_seconds)
        check_counts(self, "m", "ef_construction", "ef_search", "shards", "replicas")

    def build(self, vectors: Vectors) -> HostedIndex:
        vectors, server = check_vectors(vectors), MilvusServer(self)
        return HostedIndex(server, database.build(server, self.name, vectors), vectors)

    def load(self, path: Path, vectors: Vectors) -> HostedIndex:
        server = MilvusServer(self)
        return HostedIndex(server, database.load(server, path, vectors), vectors)

    def went_live(self, path: Path) -> None:
        database.went_live(MilvusServer(self), self.name, path)

    def retire(self, path: Path) -> None:
        database.retire(MilvusServer(self), self.name, path)


class MilvusServer:
    """A `Database`. One connection for all that this process has to do with a server; it finds a server again that was
    away."""

    kind = "milvus"
    most = MOST_HITS

    def __init__(self, spec: Milvus) -> None:
        self._spec = spec
        self.place = f"Milvus at {spec.path or spec.uri}"

    def collections(self) -> list[str]:
        with self._call() as (client, within):
            return list(client.list_collections(timeout=within))

    def marker(self, collection: str) -> Marker | None:
        with self._call() as (client, within):
            if not client.has_collection(collection, timeout=within):
                return None
            told = client.describe_collection(collection, timeout=within)["properties"]
            return _marker(told.get(MARKER, ""))

    def mark(self, collection: str, marker: Marker) -> None:
        with self._call(collection) as (client, within):
            client.alter_collection_properties(collection, {MARKER: json.dumps(marker)}, timeout=within)

    def create(self, collection: str, dim: int, marker: Marker) -> None:
        from pymilvus import DataType

        with self._call(collection, building=True) as (client, within):
            schema = client.create_schema(auto_id=False, description="Made by zhiyin: read it, do not write to it.")
            schema.add_field(ROW, DataType.INT64, is_primary=True)
            schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
            client.create_collection(
                collection,
                schema=schema,
                properties={MARKER: json.dumps(marker)},
                num_shards=self._spec.shards,
                consistency_level="Strong",
                timeout=within,
            )

    def insert(self, collection: str, first: int, vectors: Vectors) -> None:
        rows = [{ROW: first + at, VECTOR: vector} for at, vector in enumerate(vectors)]
        with self._call(collection, building=True) as (client, within):
            client.insert(collection, rows, timeout=within)

    def finish(self, collection: str, rows: int) -> None:
        with self._call(collection, building=True) as (client, within):
            client.flush(collection, timeout=within)
            wanted = client.prepare_index_params()
            settings = {"params": self._built(rows)}  # flat, as the client likes it, Milvus Lite passes over them
            wanted.add_index(VECTOR, self._spec.kind, VECTOR, metric_type="IP", params=settings)
            client.create_index(collection, wanted, sync=False, timeout=within)
            self._wait(client, collection)
            self._load(client, collection, within)

    def ready(self, collection: str) -> None:
        with self._call(collection, building=True) as (client, within):
            self._load(client, collection, within)

    def count(self, collection: str) -> int:
        with self._call(collection) as (client, within):
            told = self._in_memory(client, collection, within, lambda: self._count(client, collection, within))
            return int(told[0]["count(*)"])

    def search(self, collection: str, queries: Vectors, k: int) -> Rows:
        with self._call(collection) as (client, within):
            found = self._in_memory(
                client, collection, within, lambda: self._search(client, collection, queries, k, within)
            )
        rows: Rows = np.full((len(queries), k), UNKNOWN, np.int32)
        for place, hits in enumerate(found):
            rows[place, : len(hits)] = hits.ids
        return rows

    def drop(self, collection: str) -> None:
        with self._call(collection) as (client, within):
            client.drop_collection(collection, timeout=within)

    def aliased(self, alias: str) -> str:
        with self._call() as (client, within):
            if not client.has_collection(alias, timeout=within):  # an alias answers as its collection does
                return ""
            return str(client.describe_alias(alias, timeout=within)["collection_name"])

    def point(self, alias: str, collection: str) -> None:
        there = self.aliased(alias)
        with self._call(collection) as (client, within):
            set_alias = client.alter_alias if there else client.create_alias
            set_alias(collection, alias, timeout=within)

    def unpoint(self, alias: str) -> None:
        with self._call() as (client, within):
            client.drop_alias(alias, timeout=within)

    def _in_memory(self, client: Any, collection: str, within: float, act: Callable[[], Any]) -> Any:
        """What `act` gives. A server that was restarted has the collection on disk alone: it is told to read it, and
        goes on with that when it takes longer than a search may."""
        try:
            return act()
        except Exception as error:
            if _code(error) != NOT_LOADED:
                raise
            self._load(client, collection, within)
            return act()

    def _count(self, client: Any, collection: str, within: float) -> Any:
        return client.query(
            collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=within
        )

    def _search(self, client: Any, collection: str, queries: Vectors, k: int, within: float) -> Any:
        return client.search(
            collection,
            data=queries,
            anns_field=VECTOR,
            limit=k,
            search_params={"metric_type": "IP", "params": self._searched(k)},
            output_fields=[ROW],
            consistency_level="Eventually",  # nothing is written any more
            timeout=within,
        )

    def _built(self, rows: int) -> Mapping[str, int]:
        if self._spec.kind == "HNSW":
            return {"M": self._spec.m, "efConstruction": self._spec.ef_construction}
        return {"nlist": min(cell_count(self._spec.nlist, rows), MOST_CELLS)} if self._spec.kind != "FLAT" else {}

    def _searched(self, k: int) -> Mapping[str, int]:
        if self._spec.kind == "HNSW":
            return {"ef": max(k, self._spec.ef_search)}
        return {"nprobe": self._spec.nprobe} if self._spec.kind != "FLAT" else {}

    def _wait(self, client: Any, collection: str) -> None:
        """Until every row is indexed: looked at ever more seldom."""
        end, pause = time.monotonic() + self._spec.build_seconds, 0.01
        while True:
            told = client.describe_index(collection, VECTOR, timeout=self._spec.timeout)
            if told["state"] == "Failed":
                raise SearchError(f"the index of '{collection}' could not be built", where=self.place)
            if told["state"] == "Finished" and not told["pending_index_rows"]:
                return
            if time.monotonic() > end:
                raise SearchError(
                    f"the index of '{collection}' is not built after {self._spec.build_seconds:g} s",
                    where=self.place,
                    remedy="Raise build_seconds, or look at the server.",
                )
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _load(self, client: Any, collection: str, within: float) -> None:
        client.load_collection(collection, replica_number=self._spec.replicas, timeout=within)

    @contextmanager
    def _call(self, collection: str = "", *, building: bool = False) -> Iterator[tuple[Any, float]]:
        """The client, and the seconds a call may take. What it raises becomes a sentence."""
        failures = _failures()
        within = self._spec.build_seconds if building else self._spec.timeout
        client = None
        try:
            client = _client(self._spec, self.place)
            yield client, within
        except failures as error:
            if client is not None and _is_away(error):
                _forget(client)
            raise _sentence(error, collection, self.place, within) from None


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises. Raises `SearchError` where it is not installed."""
    try:
        import grpc
        from pymilvus.exceptions import MilvusException
    except ModuleNotFoundError:
        raise SearchError(
            "Milvus needs the package 'pymilvus', which is not installed",
            where="indexes.milvus",
            remedy="pip install 'zhiyin[milvus]', or choose another index.",
        ) from None
    return MilvusException, grpc.RpcError, OSError


def _client(spec: Milvus, place: str) -> Any:
    import pymilvus

    asked = time.monotonic()
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with a traceback
    address = str(spec.path) if spec.path is not None else spec.uri
    key = (address, spec.database, token(spec.token_env, spec.token_file, place))
    options = {"grpc.keepalive_time_ms": SELDOM} if spec.path is not None else {}
    with _opening:
        failed, why = _failed.get(key, (0.0, None))
        if why is not None and failed > asked:
            raise why  # somebody has just tried, while this one waited to
        if key not in _clients:
            try:
                _clients[key] = pymilvus.MilvusClient(
                    address,
                    token=key[2],
                    db_name=spec.database,
                    timeout=spec.timeout,
                    dedicated=True,
                    grpc_options=options,
                )
            except Exception as error:
                _failed[key] = time.monotonic(), error
                raise
        return _clients[key]


def _forget(client: Any) -> None:
    """The next call makes a new connection: this one may never come back by itself."""
    with _opening:
        for key in [key for key, one in _clients.items() if one is client]:
            _clients.pop(key).close()


def _marker(text: str) -> Marker:
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_away(error: Exception) -> bool:
    """Whether there is no connection, as against a call that took too long or was refused."""
    import grpc

    lost = "closed channel" in str(error)  # by another call, which noticed first
    return lost or isinstance(error, OSError) or _code(error) in (CONNECT_FAILED, grpc.StatusCode.UNAVAILABLE)


def _code(error: Exception) -> Any:
    code = getattr(error, "code", None)
    return code() if callable(code) else code


def _sentence(error: Exception, collection: str, place: str, within: float) -> SearchError:
    import grpc

    if _code(error) == NOT_FOUND and collection:
        return gone(collection, place)
    said = " ".join(str(getattr(error, "message", "") or error).split())[:200]
    if _is_away(error) or isinstance(_code(error), grpc.StatusCode):
        return SearchError(
            f"cannot be reached, or did not answer within {within:g} s ({said})",
            where=place,
            remedy="Look at the server; searches go on when it is back.",
        )
    return SearchError(f"it refused ({said})", where=place)


EXAMPLES = (Milvus(m=16, ef_construction=64),)
