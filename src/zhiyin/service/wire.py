"""JSON on the wire ↔ the retriever's dataclasses. Strict: an unknown field or a wrong type is refused by its path.

Times on the wire are Unix seconds, fractions allowed; inside they are whole milliseconds.
"""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields

from zhiyin.channels.diversity import Diversity
from zhiyin.channels.merge import RRF, Calibrated, Merge, Quota, RoundRobin
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import RequestError, SpecError
from zhiyin.retriever import Candidates, Request
from zhiyin.spec import nearest
from zhiyin.stores.base import Event

SKEW_MS = 5 * 60_000
"""How far ahead of the service's clock an event may be."""

EARLIEST = date(1990, 1, 1)
"""The day before which no event was, where the service says no other: a time that was never set, or is in another unit
than seconds, comes out in 1970; a clock that lost its battery often in 1980."""

_SHORT = (("seconds divided by 1,000", 1000), ("minutes", 60), ("hours", 3600), ("days", 86_400))
"""Units in which a time of today is a small number, with their seconds."""

DEFAULT_K = 100
"""Candidates for who does not say how many."""

Id = Annotated[str, Meta(min_length=1, max_length=1024)]
Seconds = Annotated[float, Meta(description="Unix time in seconds")]
Body = TypeVar("Body", bound=Struct)


class InlineEvent(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An event that comes with a request: it is used, and not kept. Without `time` it is the newest."""

    item_id: Id
    time: Seconds | None = None
    values: dict[str, Any] = {}


class Diverse(Struct, forbid_unknown_fields=True):
    """Difference counts: every two candidates whose cards differ in the field `by` are worth `weight`, in units of the
    score."""

    weight: Annotated[float, Meta(ge=0)]
    by: Annotated[str, Meta(min_length=1)]


class ByRank(Struct, forbid_unknown_fields=True, tag_field="by", tag="rrf"):
    """Reciprocal-rank fusion: the sum of 1 / (k + rank) over the channels."""

    k: Annotated[int, Meta(ge=0)] = 60


class ByScore(Struct, forbid_unknown_fields=True, tag_field="by", tag="calibrated"):
    """The sum of the channels' scores, each as standard deviations from its channel's mean."""


class ByTurns(Struct, forbid_unknown_fields=True, tag_field="by", tag="round_robin"):
    """The channels take turns."""


class ByQuota(Struct, forbid_unknown_fields=True, tag_field="by", tag="quota"):
    """Turns in proportion to `shares`: {"deep": 3, "fresh": 1}."""

    shares: dict[str, Annotated[float, Meta(ge=0)]]


class Retrieve(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One user wants `k` candidates: `user_id` names a stored profile and history; `events` and `profile` add to them.

    `k`: 100 when left out, or as many as there can be. `hydrate` names the fields of the items' cards to answer with
    ("*": all); `exclude_seen` keeps the history out; `filter` says what every candidate must be ("price < 20 and not
    adult"); `diversity` chooses among four times as many by difference too."""

    user_id: Annotated[str, Meta(max_length=1024)] = ""
    k: Annotated[int, Meta(ge=1)] | None = None
    events: list[InlineEvent] = []
    profile: dict[str, Any] = {}
    context: dict[str, Any] = {}
    exclude: list[str] = []
    exclude_seen: bool = True
    filter: str = ""
    hydrate: list[str] = []
    time: Seconds | None = None
    diversity: Diverse | None = None
    channels: list[str] = []
    merge: ByRank | ByScore | ByTurns | ByQuota | None = None
    deadline_ms: Annotated[float, Meta(gt=0)] | None = None
    explain: bool = False


class RetrieveMany(Struct, forbid_unknown_fields=True):
    """Many requests, answered in order."""

    requests: Annotated[list[Retrieve], Meta(min_length=1)]


class StoredEvent(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A user did something with an item. An event sent twice (the same `event_id`; without one, the same item and time)
    counts once. Without `time` it happened now."""

    user_id: Id
    item_id: Id
    time: Seconds | None = None
    values: dict[str, Any] = {}
    event_id: str = ""


class Events(Struct, forbid_unknown_fields=True):
    """Events to keep: the next request of their users sees them."""

    events: Annotated[list[StoredEvent], Meta(min_length=1)]


class Accepted(Struct):
    """`accepted`: how many were new; `duplicates`: how many were there already, or are older than all of a history that
    is full; `unknown_items`: up to 20 items that the live release does not know (their events are kept: a later release
    may)."""

    accepted: int
    duplicates: int
    unknown_items: list[str]


class From(Struct):
    """A channel that found a candidate: its rank there, from 1, and its score there."""

    channel: str
    rank: int
    score: float


class Near(Struct):
    """An item of the history, and the cosine between its vector and the candidate's."""

    item_id: str
    similarity: float


class Explanation(Struct):
    """`history`: the items of the history that are nearest to the candidate, at most three. `interest`: which of the
    user's interests found it; null where none did."""

    history: list[Near]
    interest: int | None


class NewItem(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An item as it is now. `values`: its columns in the item table, by name, from which features and attributes are
    read, as in training. Its card shows them, and what `card` says beside them."""

    item_id: Id
    values: dict[str, Any]
    card: dict[str, Any] = {}


class NewItems(Struct, forbid_unknown_fields=True):
    """Items to add, or to replace whole: they can be found when this is answered, elsewhere within a second."""

    items: Annotated[list[NewItem], Meta(min_length=1)]


class Kept(Struct, omit_defaults=True):
    """`added`: how many were not there before; `unread`: names among the values that the live release reads neither as
    a feature nor as an attribute (cards show them); `blocked`: up to 20 items among them that are blocked, and stay so.
    """

    added: int
    replaced: int
    unread: list[str]
    blocked: list[str] = []


class Deleted(Struct):
    """The item is not found any more, until it is put again. `found`: whether it was before."""

    item_id: str
    found: bool


class Block(Struct):
    """Whether the item is blocked now: it is not found then, by any channel, until it is unblocked. `in_release`:
    whether it is in the live release, or was put since; one that comes later is blocked, too."""

    item_id: str
    blocked: bool
    in_release: bool


class Blocked(Struct):
    """An item that is blocked now, and since when, in Unix seconds. `in_release`: whether it is in the live release, or
    was put since."""

    item_id: str
    time: float
    in_release: bool


class BlockedItems(Struct):
    """Those blocked longest first. `next`: what to go on `after`; null where there is no more. A page may hold less
    than it could, or nothing, before that."""

    items: list[Blocked]
    next: int | None


class Gone(Struct):
    """An item that is deleted now, and since when, in Unix seconds."""

    item_id: str
    time: float


class DeletedItems(Struct):
    """Those deleted longest ago first; otherwise as blocked ones."""

    items: list[Gone]
    next: int | None


class Candidate(Struct, omit_defaults=True):
    """`score`: larger is better; of one channel its own (an inner product, of the deep one), of several the merge's.
    `interest`: which of the user's interests found it. `card`: as asked; null where the item has none. `sources`: the
    channels that found it, where the request names channels or several are asked. `explanation`: where it is asked."""

    item_id: str
    score: float
    interest: int = 0
    card: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    sources: list[From] | msgspec.UnsetType = msgspec.UNSET
    explanation: Explanation | msgspec.UnsetType = msgspec.UNSET


class Drop(Struct):
    """A channel that was asked and is not in the answer, and why."""

    channel: str
    why: str


class Answer(Struct, omit_defaults=True):
    """Candidates by descending score, or in the order that diversity chose them. `channel`: "deep", or "popular" for a
    user of whom nothing is known; several are joined by "+". `history`: how many events the tower saw. `unknown_items`:
    items of the request's own events that the release does not know. `dropped`: channels that were late or failed.
    `degraded`: only while the store does not answer, what is missing: "user" (the stored profile and events), "cards".
    """

    release: str
    channel: str
    candidates: list[Candidate]
    history: int
    unknown_items: list[str]
    took_ms: float
    dropped: list[Drop] = []
    degraded: list[str] = []


class Answers(Struct):
    """One answer for each request, in order."""

    results: list[Answer]


class Item(Struct):
    """An item's card (null where none was put), whether the item is in the live release, or was put since, and whether
    it is blocked, and not found therefore."""

    item_id: str
    card: dict[str, Any] | None
    in_release: bool
    blocked: bool


class Problem(Struct, omit_defaults=True):
    """What is wrong, where, what was expected, and the way out."""

    message: str
    where: str = ""
    expected: str = ""
    remedy: str = ""


class Refusal(Struct):
    """The body of every answer that is no 2xx."""

    error: Problem


def decode(body: bytes, kind: type[Body]) -> Body:
    """The body as `kind`. Raises `RequestError` naming the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _refused(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}", expected="a JSON object in UTF-8") from None


def decode_retrieve(body: bytes, most: int) -> tuple[list[Retrieve], bool]:
    """The requests in a body, and whether it holds many. Raises `RequestError` for more than `most`."""
    if not re.match(rb'\s*\{\s*"requests"', body):
        return [decode(body, Retrieve)], False
    requests = decode(body, RetrieveMany).requests
    if len(requests) > most:
        raise RequestError(f"{len(requests)} requests", where="requests", expected=f"at most {most}")
    return requests, True


def to_request(wire: Retrieve, now: int, most: int, where: str, earliest: date = EARLIEST) -> Request:
    """The retriever's request. `now`: milliseconds since 1970; `most`: the largest k that may be asked; `earliest`: the
    first day that a time may be on.

    Raises `RequestError` for a larger k, and for a time that cannot be.
    """
    if wire.k is not None and wire.k > most:
        raise RequestError(
            f"{wire.k}", where=f"{where}k", expected=f"at most {most}, by the catalogue and service.max_k"
        )
    time = now if wire.time is None else milliseconds(wire.time, now, f"{where}time", earliest)
    events = tuple(
        Event(
            wire.user_id,
            event.item_id,
            time if event.time is None else milliseconds(event.time, now, f"{where}events[{at}].time", earliest),
            event.values,
        )
        for at, event in enumerate(wire.events)
    )
    return Request(
        user=wire.user_id,
        events=events,
        profile=wire.profile,
        context=wire.context,
        k=min(DEFAULT_K, most) if wire.k is None else wire.k,
        exclude=tuple(wire.exclude),
        exclude_seen=wire.exclude_seen,
        filter=wire.filter,
        hydrate=tuple(wire.hydrate),
        time=time,
        diversity=None if wire.diversity is None else Diversity(wire.diversity.weight, wire.diversity.by),
        channels=tuple(wire.channels),
        merge=None if wire.merge is None else to_merge(wire.merge, f"{where}merge"),
        deadline_ms=wire.deadline_ms,
        explain=wire.explain,
    )


def to_merge(wire: ByRank | ByScore | ByTurns | ByQuota, where: str) -> Merge:
    """The merge. Raises `RequestError` for shares that add up to nothing."""
    try:
        if isinstance(wire, ByQuota):
            return Quota(wire.shares)
        if isinstance(wire, ByRank):
            return RRF(wire.k)
        return Calibrated() if isinstance(wire, ByScore) else RoundRobin()
    except SpecError as error:
        raise RequestError(error.what, where=f"{where}{error.where}", expected=error.expected) from None


def to_event(wire: StoredEvent, now: int, where: str, earliest: date = EARLIEST) -> Event:
    """The store's event. Raises `RequestError` for a time that cannot be."""
    time = now if wire.time is None else milliseconds(wire.time, now, f"{where}.time", earliest)
    return Event(wire.user_id, wire.item_id, time, wire.values, wire.event_id)


def to_answer(found: Candidates, took_ms: float) -> Answer:
    """One answer as it goes out."""
    candidates = [
        Candidate(item, score, max(interest, 0))
        for item, score, interest in zip(found.items, found.scores, found.interests, strict=True)
    ]
    if found.cards is not None:
        for candidate, card in zip(candidates, found.cards, strict=True):
            candidate.card = card if card is None or isinstance(card, dict) else dict(card)
    if found.sources is not None:
        for candidate, sources in zip(candidates, found.sources, strict=True):
            candidate.sources = [From(one.channel, one.rank, one.score) for one in sources]
    if found.pulls is not None:
        for candidate, pulls, interest in zip(candidates, found.pulls, found.interests, strict=True):
            near = [Near(pull.item, pull.similarity) for pull in pulls]
            candidate.explanation = Explanation(near, None if interest == UNKNOWN else interest)
    dropped = [Drop(one.channel, one.why) for one in found.dropped]
    told = (found.release, found.channel, candidates, found.history, found.unknown_items)
    return Answer(*told, round(took_ms, 2), dropped, list(found.degraded))


def milliseconds(seconds: float, now: int, where: str, earliest: date) -> int:
    """Unix seconds as whole milliseconds. Raises `RequestError` for one before the day `earliest` (UTC), or later than
    five minutes from `now`, with a word on the unit where that is the likely cause."""
    first, last = datetime(earliest.year, earliest.month, earliest.day, tzinfo=UTC).timestamp(), (now + SKEW_MS) / 1000
    if seconds < first:
        raise RequestError(
            f"{_shown(seconds)} is before {earliest}",
            where=where,
            expected="Unix time in seconds, from service.earliest_event on",
            remedy=_why_early(seconds, first, last),
        )
    if seconds > last:
        units = (("nanoseconds", 1e9), ("microseconds", 1e6), ("milliseconds", 1e3))
        likely = next(
            (f"It looks like {u}: divide by {n:,.0f}." for u, n in units if seconds * 100 > now / 1e3 * n), ""
        )
        raise RequestError(
            f"{_shown(seconds)} is in the future", where=where, expected="Unix time in seconds", remedy=likely
        )
    return round(seconds * 1000)


def _why_early(seconds: float, first: float, last: float) -> str:
    if seconds == 0:
        return "It looks like a time that was never set: leave it out, and it is now."
    likely = (f"It looks like {unit}: multiply by {n:,}." for unit, n in _SHORT if first <= seconds * n <= last)
    return next(likely, "")


def _shown(seconds: float) -> str:
    return f"{seconds:g}" if seconds.is_integer() and not 1e6 <= abs(seconds) < 1e15 else f"{seconds:.3f}"


def _refused(message: str, kind: type[Struct]) -> RequestError:
    """msgspec says "Expected `int`, got `str` - at `$.k`"."""
    what, _, path = message.partition(" - at `")
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    if what.startswith("Object contains unknown field"):
        field, known = what.partition("unknown field ")[2], _fields(kind, where)
        near = nearest(field.strip("`"), known)
        return RequestError(f"unknown field {field}{near}", where=where, expected=f"one of {', '.join(known)}")
    expected, _, got = what.removeprefix("Expected ").partition(", got ")
    if got:
        return RequestError(f"found {got}", where=where, expected=expected)
    return RequestError(what, where=where)


def _fields(kind: type[Struct], path: str) -> list[str]:
    """The names of the fields that what stands at `path` in a body of `kind` may have."""
    structs = [kind]
    for step in re.findall(r"[a-z_]+", path):
        inside = [field.type for one in structs for field in fields(one) if field.encode_name == step]
        structs = [found for one in inside for found in _structs(one)]
    return sorted({field.encode_name for one in structs for field in fields(one)})


def _structs(hint: Any) -> list[type[Struct]]:
    """The structs that a type is, or holds."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return [hint]
    return [found for one in get_args(hint) for found in _structs(one)]
