"""Asking a running service: the few lines that the command line and the demo need."""

import json
import urllib.error
import urllib.request
from typing import Any

from zhiyin.errors import DataError, RequestError


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The service's answer to a JSON body. `RequestError` says what the service refused, `DataError` that none came."""
    headers = {"content-type": "application/json"}
    return _answer(urllib.request.Request(url, json.dumps(body).encode(), headers))  # noqa: S310 – the user's own URL


def get(url: str) -> dict[str, Any]:
    """The service's answer to a GET. Raises like `post`."""
    return _answer(urllib.request.Request(url))  # noqa: S310


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 – the user's own service
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise _refusal(request.full_url, error) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"no answer ({error})", where=request.full_url, remedy="Is `zhiyin serve` running there? See --url."
        ) from None


def _refusal(url: str, error: urllib.error.HTTPError) -> RequestError:
    try:
        said = json.loads(error.read())["error"]
        return RequestError(
            said["message"],
            where=said.get("where") or url,
            expected=said.get("expected", ""),
            remedy=said.get("remedy", ""),
        )
    except (ValueError, KeyError, TypeError):
        return RequestError(f"HTTP status {error.code}", where=url)
