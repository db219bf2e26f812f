"""What may be written to a store, and the bytes it becomes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import msgspec

from zhiyin.errors import RequestError
from zhiyin.stores.base import Card, Event, Profile

DEPTH = 64
"""How deep a value may be nested."""


def checked_events(events: Sequence[Event]) -> list[Event]:
    """The events as a store keeps them, none of their values shared with the caller.

    Raises `RequestError` naming the first event without a user or an item, with a time of more than 64 bits, or with a
    value that is no JSON."""
    return [_event(event, f"events[{at}]") for at, event in enumerate(events)]


def checked_profiles(profiles: Mapping[str, Profile]) -> dict[str, dict[str, Any]]:
    """Profiles likewise. Raises `RequestError` naming the user whose id is empty or whose profile is no JSON."""
    return {_id(user, "profiles"): _table(one, f"profile of user {user!r}") for user, one in profiles.items()}


def checked_cards(cards: Mapping[str, Card]) -> dict[str, dict[str, Any]]:
    """Cards likewise. Raises `RequestError` naming the item whose id is empty or whose card is no JSON."""
    return {_id(item, "cards"): _table(one, f"card of item {item!r}") for item, one in cards.items()}


def identity(event: Event) -> str:
    """What tells one event of a user from another: its id; without one, its item and time."""
    return f"id:{event.id}" if event.id else f"at:{event.time}:{event.item}"


def digest(*parts: str) -> bytes:
    """16 bytes that stand for these words in a key, however long or odd they are."""
    state = blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        state.update(len(encoded).to_bytes(8) + encoded)
    return state.digest()


def encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def decode(value: bytes | memoryview) -> Any:
    return msgspec.msgpack.decode(value)


def _event(event: Event, where: str) -> Event:
    _id(event.user, f"{where}.user"), _id(event.item, f"{where}.item"), _text(event.id, f"{where}.id")
    if not -(2**63) <= event.time < 2**63:
        raise RequestError(f"{event.time} does not fit 64 bits", where=f"{where}.time", expected="milliseconds")
    return replace(event, values=_table(event.values, f"{where}.values"))


def _id(id: str, where: str) -> str:
    if not id:
        raise RequestError("an empty id", where=where, expected="at least one character")
    return _text(id, where)


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{text!r} is not Unicode text", where=where, expected="text that UTF-8 can hold") from None
    return str(text)


def _table(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(f"{value!r} is a {type(value).__name__}", where=where, expected="names with values")
    table: dict[str, Any] = _plain(value, where, DEPTH)
    return table


def _plain(value: Any, where: str, depth: int) -> Any:
    """A copy of a JSON value, of Python's own types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise RequestError(f"{value} does not fit 64 bits", where=where)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(f"{value} is no finite number", where=where, expected="a JSON value")
        return float(value)
    if not depth:
        raise RequestError(f"nested more than {DEPTH} deep", where=where)
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{at}]", depth - 1) for at, inner in enumerate(value)]
    if not isinstance(value, Mapping):
        raise RequestError(f"{value!r} is a {type(value).__name__}", where=where, expected="a JSON value")
    for name in value:
        if not isinstance(name, str):
            raise RequestError(f"the name {name!r} is no string", where=where)
    return {_text(name, where): _plain(inner, f"{where}.{name}", depth - 1) for name, inner in value.items()}
