"""Asking a running service: the few lines that the command line and the demo need."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

from zhiyin.errors import Failure, RequestError, ZhiyinError

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A service is a neighbour: a proxy to the world outside knows no way to it."""


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The service's answer to a JSON body. `RequestError` says what the service refused, `Failure` that it could not
    answer, or that none did."""
    return _answer(url, json.dumps(body).encode())


def get(url: str) -> dict[str, Any]:
    """The service's answer to a GET. Raises like `post`."""
    return _answer(url, None)


def item(url: str, id: str) -> dict[str, Any]:
    """What the service at `url` tells of an item. Raises like `post`."""
    return get(f"{url}/v1/items/{quote(id, safe='')}")


def put_items(url: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add or replace items (`item_id`, `values`, `card`) at the service at `url`. Raises like `post`."""
    return _answer(f"{url}/v1/items", json.dumps({"items": items}).encode(), "PUT")


def delete_item(url: str, id: str) -> dict[str, Any]:
    """Take an item away from the service at `url`. Raises like `post`."""
    return _answer(f"{url}/v1/items/{quote(id, safe='')}", None, "DELETE")


def block_item(url: str, id: str) -> dict[str, Any]:
    """Keep an item from being found by the service at `url`, until it is unblocked. Raises like `post`."""
    return _answer(f"{url}/v1/blocks/{quote(id, safe='')}", None, "PUT")


def unblock_item(url: str, id: str) -> dict[str, Any]:
    """Let a blocked item be found again. Raises like `post`."""
    return _answer(f"{url}/v1/blocks/{quote(id, safe='')}", None, "DELETE")


def _answer(url: str, body: bytes | None, method: str = "") -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise RequestError(f"{url!r} is no address", expected="http://HOST:PORT", remedy="See --url.")
    headers = {} if body is None else {"content-type": "application/json"}
    try:
        request = urllib.request.Request(url, body, headers, method=method or None)  # noqa: S310 – http, as was just seen
        with _DIRECT.open(request, timeout=30) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from None
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Failure(
            f"no answer ({reason})", where=url, remedy="Is `zhiyin serve` running there? See --url."
        ) from None
    if not isinstance(answer, dict):
        raise Failure("the answer is no JSON object", where=url, remedy="Is that zhiyin's service? See --url.")
    return answer


def _refusal(url: str, error: urllib.error.HTTPError) -> ZhiyinError:
    kind = RequestError if error.code < 500 else Failure
    try:
        said = json.loads(error.read())["error"]
        return kind(
            said["message"],
            where=said.get("where") or url,
            expected=said.get("expected", ""),
            remedy=said.get("remedy", ""),
        )
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return kind(f"HTTP status {error.code}", where=url)
