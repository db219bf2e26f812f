"""Qdrant, by its own client over REST: for a catalogue past one machine's memory. It knows one index, HNSW."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import SearchError
from zhiyin.indexes import database
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.checks import check_vectors
from zhiyin.indexes.database import Marker, check_access, check_counts, check_name, check_uri, gone, token
from zhiyin.indexes.hosted import HostedIndex

MEMORY = ":memory:"
"""Instead of a uri: the engine that the client brings, in this process and gone with it."""

MOST_HITS = 16_384
"""More of them are answered exactly: a server has no limit, but so many hits in JSON take longer."""

_clients: dict[tuple[str, str, int], Any] = {}
_opening = threading.Lock()
_embedded = threading.Lock()
"""The engine in this process takes one call at a time."""


@dataclass(frozen=True, slots=True)
class Qdrant:
    """Where the server is, how to be let in, and how its HNSW is built.

    `uri`: ":memory:" is the engine that the client brings, in this process and gone with it: exact, and for trying. An
    API key comes from the environment variable `token_env` or the file `token_file`. `name`: begins the name of every
    collection, and is the alias of the live one; no two catalogues of a server may share it. `m`, `ef_construction`,
    `ef_search`: as in HNSW. `on_disk`: vectors and graph are read from disk, not kept in memory. `shards`, `replicas`:
    of a collection, in a cluster. `timeout`: seconds for one call of a search, `build_seconds` for one call of a build;
    whole ones, a part counts as a whole.
    """

    uri: str = "http://127.0.0.1:6333"
    token_env: str = ""
    token_file: Path | None = None
    name: str = "zhiyin"
    m: int = 32
    ef_construction: int = 128
    ef_search: int = 128
    on_disk: bool = False
    shards: int = 1
    replicas: int = 1
    timeout: float = 2.0
    build_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.uri != MEMORY:
            check_uri(self.uri)
        check_access(self.token_env, self.token_file, self.timeout, self.build_seconds)
        check_counts(self, "m", "ef_construction", "ef_search", "shards", "replicas")

    def build(self, vectors: Vectors) -> HostedIndex:
        vectors, server = check_vectors(vectors), QdrantServer(self)
        return HostedIndex(server, database.build(server, self.name, vectors), vectors)

    def load(self, path: Path, vectors: Vectors) -> HostedIndex:
        server = QdrantServer(self)
        return HostedIndex(server, database.load(server, path, vectors), vectors)

    def went_live(self, path: Path) -> None:
        database.went_live(QdrantServer(self), self.name, path)

    def retire(self, path: Path) -> None:
        database.retire(QdrantServer(self), self.name, path)


class QdrantServer:
    """A `Database`. One pool of connections for all that this process has to do with a server."""

    kind = "qdrant"
    most = MOST_HITS

    def __init__(self, spec: Qdrant) -> None:
        self._spec = spec
        self.place = "Qdrant in this process" if spec.uri == MEMORY else f"Qdrant at {spec.uri}"

    def collections(self) -> list[str]:
        with self._call() as (client, _):
            return [one.name for one in client.get_collections().collections]

    def marker(self, collection: str) -> Marker | None:
        with self._call() as (client, _):
            if not client.collection_exists(collection):
                return None
            marker: Marker = client.get_collection(collection).config.metadata or {}
            return marker

    def mark(self, collection: str, marker: Marker) -> None:
        with self._call(collection) as (client, within):
            client.update_collection(collection, metadata=dict(marker), timeout=within)

    def create(self, collection: str, dim: int, marker: Marker) -> None:
        from qdrant_client import models

        on_disk = self._spec.on_disk or None
        graph = models.HnswConfigDiff(m=self._spec.m, ef_construct=self._spec.ef_construction, on_disk=on_disk)
        with self._call(collection, building=True) as (client, within):
            client.create_collection(
                collection,
                models.VectorParams(size=dim, distance=models.Distance.DOT, on_disk=on_disk),
                hnsw_config=graph,
                shard_number=self._spec.shards,
                replication_factor=self._spec.replicas,
                metadata=dict(marker),
                timeout=within,
            )

    def insert(self, collection: str, first: int, vectors: Vectors) -> None:
        from qdrant_client import models

        points = models.Batch(ids=list(range(first, first + len(vectors))), vectors=vectors.tolist())
        with self._call(collection, building=True) as (client, within):
            client.upsert(collection, points, wait=True, timeout=within)

    def finish(self, collection: str, rows: int) -> None:
        """The server builds its graph in the background, and says green when it is done."""
        end, pause = time.monotonic() + self._spec.build_seconds, 0.01
        while True:
            with self._call(collection) as (client, _):
                status = str(client.get_collection(collection).status.value)
            if status == "green":
                return
            if status == "red" or time.monotonic() > end:
                raise SearchError(
                    f"the index of '{collection}' is {status} after {self._spec.build_seconds:g} s"
                    if status != "red"
                    else f"the index of '{collection}' could not be built",
                    where=self.place,
                    remedy="Look at the server, or raise build_seconds.",
                )
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def ready(self, collection: str) -> None:
        """Nothing to do: the server reads what it has before it answers."""

    def count(self, collection: str) -> int:
        with self._call(collection) as (client, within):
            return int(client.count(collection, exact=True, timeout=within).count)

    def search(self, collection: str, queries: Vectors, k: int) -> Rows:
        from qdrant_client import models

        effort = models.SearchParams(hnsw_ef=max(k, self._spec.ef_search)) if self._spec.uri != MEMORY else None
        asked = [models.QueryRequest(query=query.tolist(), limit=k, params=effort) for query in queries]
        with self._call(collection) as (client, within):
            found = client.query_batch_points(collection, asked, timeout=within)
        rows: Rows = np.full((len(queries), k), UNKNOWN, np.int32)
        for place, hits in enumerate(found):
            rows[place, : len(hits.points)] = [point.id for point in hits.points]
        return rows

    def drop(self, collection: str) -> None:
        with self._call(collection) as (client, within):
            client.delete_collection(collection, timeout=within)

    def aliased(self, alias: str) -> str:
        with self._call() as (client, _):
            there = client.get_aliases().aliases
        return next((one.collection_name for one in there if one.alias_name == alias), "")

    def point(self, alias: str, collection: str) -> None:
        from qdrant_client import models

        made = models.CreateAlias(collection_name=collection, alias_name=alias)
        self._alias([*self._unaliasing(alias), models.CreateAliasOperation(create_alias=made)])

    def unpoint(self, alias: str) -> None:
        self._alias(self._unaliasing(alias))

    def _unaliasing(self, alias: str) -> list[Any]:
        from qdrant_client import models

        return [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))]

    def _alias(self, steps: list[Any]) -> None:
        """All steps at once: nobody sees a moment without the alias."""
        with self._call() as (client, within):
            client.update_collection_aliases(steps, timeout=within)

    @contextmanager
    def _call(self, collection: str = "", *, building: bool = False) -> Iterator[tuple[Any, int]]:
        """The client, and the whole seconds a call may take. What it raises becomes a sentence."""
        failures = _failures()
        within = math.ceil(self._spec.build_seconds if building else self._spec.timeout)
        try:
            with _embedded if self._spec.uri == MEMORY else nullcontext():
                yield _client(self._spec, self.place), within
        except failures as error:
            raise _sentence(error, collection, self.place, within) from None


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises. Raises `SearchError` where it is not installed."""
    try:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException
    except ModuleNotFoundError:
        raise SearchError(
            "Qdrant needs the package 'qdrant-client', which is not installed",
            where="indexes.qdrant",
            remedy="pip install 'zhiyin[qdrant]', or choose another index.",
        ) from None
    return ApiException, QdrantException, ValueError


def _client(spec: Qdrant, place: str) -> Any:
    from qdrant_client import QdrantClient

    timeout = math.ceil(spec.timeout)
    key = (spec.uri, token(spec.token_env, spec.token_file, place), timeout)
    with _opening:
        if key not in _clients:
            where = {"location": MEMORY} if spec.uri == MEMORY else {"url": spec.uri, "api_key": key[1] or None}
            _clients[key] = QdrantClient(**where, timeout=timeout, check_compatibility=False)
        return _clients[key]


def _sentence(error: Exception, collection: str, place: str, within: int) -> SearchError:
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    said = " ".join(str(error).split())[:200]
    if collection and (getattr(error, "status_code", 0) == 404 or f"Collection {collection} not found" in said):
        return gone(collection, place)
    if isinstance(error, ResponseHandlingException) or getattr(error, "status_code", 0) in (502, 503, 504):
        return SearchError(
            f"cannot be reached, or did not answer within {within} s ({said})",
            where=place,
            remedy="Look at the server; searches go on when it is back.",
        )
    if isinstance(error, UnexpectedResponse) and error.status_code in (401, 403):
        return SearchError("it lets nobody in with this API key", where=place, remedy="Set token_env or token_file.")
    return SearchError(f"it refused ({said})", where=place)


EXAMPLES = (Qdrant(),)
