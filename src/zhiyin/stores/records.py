"""What may be written to a store, and the bytes it becomes."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from zhiyin.errors import RequestError
from zhiyin.stores.base import Card, Event, Profile

_PLAIN = (str, int, float, bool, type(None))


def check_events(events: Sequence[Event]) -> None:
    """Raises `RequestError` naming the first event without a user or an item, or with a value that is no JSON."""
    for at, event in enumerate(events):
        if not event.user or not event.item:
            raise RequestError(f"an event without {'a user' if not event.user else 'an item'}", where=f"events[{at}]")
        _check(event.values, f"events[{at}].values")


def check_profiles(profiles: Mapping[str, Profile]) -> None:
    """Raises `RequestError` naming the user whose id is empty or whose profile is no JSON."""
    for user, profile in profiles.items():
        if not user:
            raise RequestError("a profile of a user without an id", where="profiles")
        _check(profile, f"profile of user {user!r}")


def check_cards(cards: Mapping[str, Card]) -> None:
    """Raises `RequestError` naming the item whose id is empty or whose card is no JSON."""
    for item, card in cards.items():
        if not item:
            raise RequestError("a card of an item without an id", where="cards")
        _check(card, f"card of item {item!r}")


def identity(event: Event) -> str:
    """What tells one event from another: its id; without one, its item and time."""
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


def _check(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise RequestError(f"the name {name!r} is no string", where=where)
            _check(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            _check(inner, f"{where}[{at}]")
    elif not isinstance(value, _PLAIN):
        raise RequestError(f"{value!r} is a {type(value).__name__}", where=where, expected="a JSON value")
    elif isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        raise RequestError(f"{value} does not fit 64 bits", where=where)
