"""What may be written to a store, and the bytes it becomes."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypedDict

import msgspec

from zhiyin.errors import RequestError
from zhiyin.stores.base import Card, Change, Event, Profile

DEPTH = 64
"""How deep a value may be nested."""

LARGEST = 1 << 20
"""The most bytes of one profile, one card, or one event's values."""

MOST_FIELDS = 64
"""Of so many fields at most, only they are decoded: each field of a card is sought among all of them."""


def checked_events(events: Sequence[Event]) -> list[Event]:
    """The events as a store keeps them, none of their values shared with the caller.

    Raises `RequestError` naming the first event without a user or an item, with a time of more than 64 bits, or with a
    value that is no JSON."""
    checked = []
    for at, event in enumerate(events):
        try:
            checked.append(_event(event))
        except RequestError as error:
            raise error.at(f"events[{at}]") from None
    return checked


def checked_profiles(profiles: Mapping[str, Profile]) -> dict[str, dict[str, Any]]:
    """Profiles likewise. Raises `RequestError` naming the user whose id is empty or whose profile is no JSON."""
    return {_id(user, "profiles"): _table(one, f"profile of user {user!r}") for user, one in profiles.items()}


def checked_cards(cards: Mapping[str, Card]) -> dict[str, dict[str, Any]]:
    """Cards likewise. Raises `RequestError` naming the item whose id is empty or whose card is no JSON."""
    return {_id(item, "cards"): _table(one, f"card of item {item!r}") for item, one in cards.items()}


def checked_changes(changes: Sequence[Change]) -> list[Change]:
    """Changes likewise, without numbers. Raises `RequestError` naming the first that is of no item, has a time of more
    than 64 bits, or a value that is no JSON."""
    checked = []
    for at, change in enumerate(changes):
        try:
            checked.append(_change(change))
        except RequestError as error:
            raise error.at(f"changes[{at}]") from None
    return checked


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


def change_key(change: Change) -> bytes:
    """16 bytes under which the last change of this item is kept; its last block has a place of its own."""
    return digest(change.item) if change.blocked is None else digest(change.item, "blocked")


def packed_change(change: Change) -> bytes:
    return encode((change.item, change.time, change.values if change.blocked is None else change.blocked))


def unpacked_change(packed: bytes, number: int) -> Change:
    item, time, values = decode(packed)
    return Change(item, time, None, number, values) if isinstance(values, bool) else Change(item, time, values, number)


def encode(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def decode(value: bytes | memoryview) -> Any:
    return msgspec.msgpack.decode(value)


def decode_cards(packed: Sequence[bytes | None], fields: Sequence[str] | None = None) -> list[Card | None]:
    """Each card of its bytes, whole or with no fields but these; the bytes of the others are passed over."""
    if fields is not None and len(fields) <= MOST_FIELDS:
        decoded = _decoder(frozenset(fields)).decode
        return [None if one is None else decoded(one) for one in packed]
    return [only(None if one is None else decode(one), fields) for one in packed]


def only(card: Card | None, fields: Sequence[str] | None) -> Card | None:
    """The card with no fields but these; the card itself where they are all."""
    return card if card is None or fields is None else {name: card[name] for name in fields if name in card}


@lru_cache(maxsize=256)
def _decoder(fields: frozenset[str]) -> Any:
    possible = [name for name in fields if name.encode(errors="ignore").decode() == name]  # no card has another
    kind: Any = TypedDict("_Some", dict.fromkeys(possible, Any), total=False)  # type: ignore[misc]  # known only now
    return msgspec.msgpack.Decoder(kind)


def _event(event: Event) -> Event:
    user, item, id = _id(event.user, ".user"), _id(event.item, ".item"), _text(event.id, ".id")
    return Event(user, item, _time(event.time), _table(event.values, ".values"), id)


def _change(change: Change) -> Change:
    values = None if change.values is None else _table(change.values, ".values")
    if values is not None and change.blocked is not None:
        raise RequestError("a block with values", where=".values", expected="None: a block says nothing of the item")
    return Change(_id(change.item, ".item"), _time(change.time), values, blocked=change.blocked)


def _time(time: int) -> int:
    if not -(2**63) <= time < 2**63:
        raise RequestError(f"{time} does not fit 64 bits", where=".time", expected="milliseconds")
    return int(time)


def _id(id: str, where: str) -> str:
    if not id:
        raise RequestError("an empty id", where=where, expected="at least one character")
    return _text(id, where)


def _text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"{text!r} is not Unicode text", where=where, expected="text that UTF-8 can hold"
            ) from None
    return str(text)


def _table(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RequestError(f"{value!r} is a {type(value).__name__}", where=where, expected="names with values")
    try:
        table: dict[str, Any] = _plain(value, DEPTH)
    except RequestError as error:
        raise error.at(where) from None
    if table and (size := len(encode(table))) > LARGEST:
        raise RequestError(f"{size:,} bytes", where=where, expected=f"at most {LARGEST:,}")
    return table


def _plain(value: Any, depth: int) -> Any:
    """A copy of a JSON value, of Python's own types. What it raises names the place within the value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, "")
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise RequestError(f"{value} does not fit 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(f"{value} is no finite number", expected="a JSON value")
        return float(value)
    if not depth:
        raise RequestError(f"nested more than {DEPTH} deep")
    if isinstance(value, list | tuple):
        return _list(value, depth)
    if not isinstance(value, Mapping):
        raise RequestError(f"{value!r} is a {type(value).__name__}", expected="a JSON value")
    plain = {}
    for name, inner in value.items():
        if not isinstance(name, str):
            raise RequestError(f"the name {name!r} is no string")
        try:
            plain[_text(name, "")] = _plain(inner, depth - 1)
        except RequestError as error:
            raise error.at(f".{name}") from None
    return plain


def _list(values: Sequence[Any], depth: int) -> list[Any]:
    plain = []
    for at, inner in enumerate(values):
        try:
            plain.append(_plain(inner, depth - 1))
        except RequestError as error:
            raise error.at(f"[{at}]") from None
    return plain
