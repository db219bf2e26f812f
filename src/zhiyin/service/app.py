"""The HTTP service: routes, and a server to run them.

The event loop only reads and writes; store, tower and search run in a pool of threads sized to the cores, for they
release the GIL and would otherwise hold up every other connection.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from zhiyin.channels.online import STANDARD, Online
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import (
    ChannelError,
    Failure,
    ReleaseError,
    RequestError,
    SearchError,
    SpecError,
    StoreError,
    UserError,
    ZhiyinError,
)
from zhiyin.retriever import Retriever
from zhiyin.service import items, openapi, wire
from zhiyin.service.live import Live
from zhiyin.service.taken import Kind, Paging, Taken, is_block, is_deletion, taken
from zhiyin.stores.base import Store

logger = logging.getLogger("zhiyin")


@dataclass(frozen=True, slots=True)
class Service:
    """`max_k`: the most candidates one request may ask for; `max_batch`: the most requests in one body; `max_body_mb`:
    the largest body; `threads`: that search, 0 for one a core; `seen_length`: the newest events of a user that are
    read and count as seen; `earliest_event`: the day (UTC) before which no event was."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_k: int = 1000
    max_batch: int = 256
    max_body_mb: float = 8.0
    threads: int = 0
    seen_length: int = 1000
    earliest_event: str = wire.EARLIEST.isoformat()

    @property
    def earliest(self) -> date:
        return date.fromisoformat(self.earliest_event)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise SpecError(f"{self.port}", where=".port", expected="0 to 65535")
        for name in ("max_k", "max_batch", "seen_length"):
            if getattr(self, name) < 1:
                raise SpecError(f"{getattr(self, name)}", where=f".{name}", expected="at least 1")
        if self.threads < 0 or self.max_body_mb <= 0:
            raise SpecError(
                f"threads = {self.threads}, max_body_mb = {self.max_body_mb}", expected="threads ≥ 0, max_body_mb > 0"
            )
        try:
            _ = self.earliest
        except ValueError:
            raise SpecError(
                f"{self.earliest_event!r}", where=".earliest_event", expected='a date, such as "1990-01-01"'
            ) from None


Handler = Callable[[HTTPRequest], Awaitable[Response]]


class AnyId(Convertor[str]):
    """An id in a path, whatever it holds: slashes and line ends, too."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", AnyId())


class Endpoint:
    """What the routes share: the live release, the store, the pool, and a clock (milliseconds since 1970)."""

    def __init__(
        self, live: Live, store: Store, settings: Service, clock: Callable[[], int], online: Online = STANDARD
    ) -> None:
        self.live, self.store, self.settings, self.clock = live, store, settings, clock
        self.retriever = Retriever(store, settings.seen_length, online)
        self.pool = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, "zhiyin-search")
        self.description = openapi.document(version("zhiyin"))

    async def retrieve(self, request: HTTPRequest) -> Response:
        started = time.perf_counter()
        wires, many = wire.decode_retrieve(await self._body(request), self.settings.max_batch)
        now, release = self.clock(), self.live.release
        most = min(self.settings.max_k, max(1, release.size))
        places = [f"requests[{at}]." if many else "" for at in range(len(wires))]
        asked = zip(wires, places, strict=True)
        requests = [wire.to_request(one, now, most, where, self.settings.earliest) for one, where in asked]
        found = await self._in_pool(lambda: self.retriever.retrieve(release, requests))
        took = 1e3 * (time.perf_counter() - started)
        answers = [wire.to_answer(one, took) for one in found]
        return _json(wire.Answers(answers) if many else answers[0])

    async def events(self, request: HTTPRequest) -> Response:
        now = self.clock()
        body = wire.decode(await self._body(request), wire.Events)
        earliest = self.settings.earliest
        events = [wire.to_event(one, now, f"events[{at}]", earliest) for at, one in enumerate(body.events)]
        new = await self._in_pool(lambda: self.store.append(events))
        return _json(wire.Accepted(new, len(events) - new, self._unknown([event.item for event in events])[:20]))

    async def item(self, request: HTTPRequest) -> Response:
        item = _path_id(request, "item_id")
        card = (await self._in_pool(lambda: self.store.cards([item])))[0]
        release = self.live.held
        blocked = release is not None and bool(release.blocks([item])[0])
        there = blocked or (release is not None and bool(release.finds([item])[0]))
        if card is None and not there:
            return _refused(404, RequestError(f"there is no item {item!r}", expected="an item of the catalogue"))
        return _json(wire.Item(item, None if card is None else dict(card), there, blocked))

    async def put_items(self, request: HTTPRequest) -> Response:
        body = wire.decode(await self._body(request), wire.NewItems)
        now, release = self.clock(), self.live.release
        put = await self._in_pool(lambda: items.checked(body.items, release, now))
        there = await self._in_pool(lambda: self.live.put(put.changes, put.cards))
        names = [change.item for change in put.changes]
        blocked = [name for name, so in zip(names, self.live.release.blocks(names), strict=True) if so]
        return _json(wire.Kept(len(there) - sum(there), sum(there), put.unread, blocked[:20]))

    async def delete_item(self, request: HTTPRequest) -> Response:
        item, now = _path_id(request, "item_id"), self.clock()
        return _json(wire.Deleted(item, await self._in_pool(lambda: self.live.delete(items.checked_id(item), now))))

    async def block_item(self, request: HTTPRequest) -> Response:
        return await self._block(request, blocked=True)

    async def unblock_item(self, request: HTTPRequest) -> Response:
        return await self._block(request, blocked=False)

    async def blocked_items(self, request: HTTPRequest) -> Response:
        page = await self._taken(request, is_block)
        names, release = [change.item for change in page.changes], self.live.held
        there = [False] * len(names) if release is None else (release.finds(names) | release.blocks(names)).tolist()
        told = [wire.Blocked(one.item, one.time / 1000, so) for one, so in zip(page.changes, there, strict=True)]
        return _json(wire.BlockedItems(told, page.next))

    async def deleted_items(self, request: HTTPRequest) -> Response:
        page = await self._taken(request, is_deletion)
        return _json(wire.DeletedItems([wire.Gone(one.item, one.time / 1000) for one in page.changes], page.next))

    async def _taken(self, request: HTTPRequest, kind: Kind) -> Taken:
        paging = Paging.read(request.query_params)
        found: Taken = await self._in_pool(lambda: taken(self.store, kind, paging))
        return found

    async def _block(self, request: HTTPRequest, *, blocked: bool) -> Response:
        item, now = _path_id(request, "item_id"), self.clock()
        there = await self._in_pool(lambda: self.live.block(items.checked_id(item), now, blocked=blocked))
        return _json(wire.Block(item, blocked, there))

    async def profile(self, request: HTTPRequest) -> Response:
        try:
            profile = msgspec.json.decode(await self._body(request), type=dict[str, Any])
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(f"the body is no profile: {error}", expected="a JSON object") from None
        user = _path_id(request, "user_id")
        await self._in_pool(lambda: self.store.put_profiles({user: profile}))
        return _json({"user_id": user})

    async def live_release(self, request: HTTPRequest) -> Response:
        manifest = self.live.release.manifest
        told = {name: value for name, value in manifest.items() if name not in ("files", "digest", "schema")}
        since = self.live.release.since
        fresh, gone, blocked = (0, 0, 0) if since is None else map(len, (since.fresh, since.gone, since.blocked))
        changed = {"fresh_items": fresh, "deleted_items": gone - blocked, "blocked_items": blocked}
        troubles = {"store_error": self.live.store_trouble, "pending_error": self.live.trouble}
        return _json({**told, **changed, **troubles})

    async def healthz(self, request: HTTPRequest) -> Response:
        return _json({"status": "alive"})

    async def readyz(self, request: HTTPRequest) -> Response:
        return _json({"status": "ready", "release": self.live.release.id})

    async def openapi_json(self, request: HTTPRequest) -> Response:
        return _json(self.description)

    async def docs(self, request: HTTPRequest) -> Response:
        return HTMLResponse(openapi.page(self.description))

    def _unknown(self, items: list[str]) -> list[str]:
        """Those that the live release does not know; none while there is no release."""
        release, distinct = self.live.held, list(dict.fromkeys(items))
        if release is None:
            return []
        return [item for item, row in zip(distinct, release.items.rows(distinct), strict=True) if row == UNKNOWN]

    async def _in_pool(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def _body(self, request: HTTPRequest) -> bytes:
        """The body. Raises `HTTPException` 415 for one that is declared as no JSON (what a foreign web page may send
        unasked), and 413 as soon as it is larger than it may be."""
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, f"the content-type is {kind!r}, expected 'application/json'")
        most = int(self.settings.max_body_mb * (1 << 20))
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise HTTPException(413, f"the body is larger than {self.settings.max_body_mb:g} MB")
            parts.append(part)
        return b"".join(parts)


def create(
    live: Live,
    store: Store,
    settings: Service,
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    online: Online = STANDARD,
) -> Starlette:
    """The application. `clock`: milliseconds since 1970; `online`: which channels there are, and which are asked."""
    endpoint = Endpoint(live, store, settings, clock, online)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        endpoint.pool.shutdown()

    return Starlette(
        lifespan=lifespan,
        exception_handlers={
            RequestError: _on_request_error,
            ReleaseError: _on_unavailable,
            ChannelError: _on_unavailable,
            SearchError: _on_unavailable,
            StoreError: _on_unavailable,
            HTTPException: _on_http_error,
        },
        routes=[
            Route("/v1/retrieve", _guarded(endpoint.retrieve), methods=["POST"]),
            Route("/v1/events", _guarded(endpoint.events), methods=["POST"]),
            Route("/v1/items", _guarded(endpoint.put_items), methods=["PUT"]),
            Route("/v1/items/{item_id:id}", _guarded(endpoint.item), methods=["GET"]),
            Route("/v1/items/{item_id:id}", _guarded(endpoint.delete_item), methods=["DELETE"]),
            Route("/v1/deletions", _guarded(endpoint.deleted_items), methods=["GET"]),
            Route("/v1/blocks", _guarded(endpoint.blocked_items), methods=["GET"]),
            Route("/v1/blocks/{item_id:id}", _guarded(endpoint.block_item), methods=["PUT"]),
            Route("/v1/blocks/{item_id:id}", _guarded(endpoint.unblock_item), methods=["DELETE"]),
            Route("/v1/users/{user_id:id}/profile", _guarded(endpoint.profile), methods=["PUT"]),
            Route("/v1/releases/live", _guarded(endpoint.live_release), methods=["GET"]),
            Route("/healthz", _guarded(endpoint.healthz), methods=["GET"]),
            Route("/readyz", _guarded(endpoint.readyz), methods=["GET"]),
            Route("/openapi.json", _guarded(endpoint.openapi_json), methods=["GET"]),
            Route("/docs", _guarded(endpoint.docs), methods=["GET"]),
        ],
    )


def serve(
    live: Live, store: Store, settings: Service, say: Callable[[str], None] = print, online: Online = STANDARD
) -> None:
    """Serve until SIGINT or SIGTERM, then return; requests under way are finished. Raises `UserError` when the port is
    taken."""
    listening = _listen(settings.host, settings.port)
    say(f"serving at {_url(listening)}  (docs at {_url(listening)}/docs); ctrl-c stops it")
    with live, _stopping():
        uvicorn.Server(_config(create(live, store, settings, online=online))).run(sockets=[listening])


@contextmanager
def _stopping() -> Iterator[None]:
    """Signals that stop the server do no more than that: it raises them again once it has stopped."""
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def running(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The application, served by a thread of this process while the block runs; yields its URL. Port 0: a free one."""
    listening = _listen(host, port)
    server = uvicorn.Server(_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="zhiyin-http", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise Failure("the server did not start", where=_url(listening), remedy="Its log says why.")
            time.sleep(0.01)
        yield _url(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror
        raise UserError(
            f"cannot listen on port {port} ({reason})",
            where=host,
            remedy="Another program may have it: choose another with --port, or --port 0 for a free one.",
        ) from None


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _path_id(request: HTTPRequest, name: str) -> str:
    """The id in a path. Raises `RequestError` for bytes that are no UTF-8: read leniently, they are another id."""
    try:
        unquote_to_bytes(request.scope["raw_path"]).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the path is not UTF-8: {error}", where=name, expected="UTF-8, percent-encoded") from None
    id: str = request.path_params[name]
    return id


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _refused(status: int, error: ZhiyinError) -> Response:
    said = wire.Refusal(wire.Problem(error.what, error.where, error.expected, error.remedy))
    return Response(msgspec.json.encode(said), status, media_type="application/json")


async def _on_request_error(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101 – what it is registered for
    return _refused(error.status, error)


async def _on_unavailable(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, ReleaseError | ChannelError | SearchError | StoreError)  # noqa: S101
    logger.warning("request %s %s refused: %s", request.method, request.url.path, error)
    return _refused(503, error)


async def _on_http_error(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    where, methods = f"{request.method} {request.url.path}", (error.headers or {}).get("Allow", "")
    way = "GET /docs shows every route." if error.status_code in (404, 405) else ""
    refusal = _refused(error.status_code, RequestError(error.detail, where=where, expected=methods, remedy=way))
    refusal.headers.update(error.headers or {})
    return refusal


def _guarded(handler: Handler) -> Handler:
    """The handler, whose failures are answers: the connection lives on, and the log holds what the answer does not."""

    async def handle(request: HTTPRequest) -> Response:
        try:
            return await handler(request)
        except (HTTPException, RequestError, ReleaseError, ChannelError, SearchError, StoreError):
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # to nobody
        except Exception as error:
            return _failed(request, error)

    return handle


def _failed(request: HTTPRequest, error: Exception) -> Response:
    number = os.urandom(4).hex()
    logger.error("request %s %s failed [%s]", request.method, request.url.path, number, exc_info=error)
    return _refused(500, RequestError("something failed here; it is not your request", remedy=f"Log entry {number}."))
