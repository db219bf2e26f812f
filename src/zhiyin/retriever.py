"""The online path, in one file: a function of (release, store, requests).

Filters → one batched store read → rows → the channels that are asked, each once for all requests (the deep one: the
same encode as in training → user tower → one batched index call) → what is seen or excluded drops out → merge → cards
by one more store read → where it is asked, the diverse among them, and what of the history pulled them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from zhiyin.channels.asking import Asked, ask, knows, longest
from zhiyin.channels.base import Found, Seeker
from zhiyin.channels.deep import trained_rows
from zhiyin.channels.diversity import POOL, Diversity
from zhiyin.channels.lanes import Busy, Lanes
from zhiyin.channels.merge import Merge, Quota, Source, merged, source
from zhiyin.channels.online import STANDARD, Online
from zhiyin.channels.pulls import Pull, pulls
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import ChannelError, RequestError, SpecError
from zhiyin.features.schema import AGE, TIME
from zhiyin.filters import bitmap
from zhiyin.indexes.base import Allowed
from zhiyin.release import Release
from zhiyin.stores.base import Card, Event, Store, UserState
from zhiyin.stores.outage import Outage
from zhiyin.stores.records import only

STORE = "(store)"
"""The lane of what is read from the store where there is a deadline; no channel may be called so."""

FOR_THE_USER, FOR_CHANNELS = 0.5, 0.75
"""Shares of a deadline by which the user must be read, and by which channels must have answered where cards follow."""

NOBODY, UNREAD = UserState(None, ()), UserState(None, ())
"""Of no user, and of one whom the store does not tell of: told apart by which of the two it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """One user wants `k` candidates.

    `user`: whose profile and events to read from the store; "" for nobody's. `events` and `profile` come with the
    request: events are added to the stored ones in time order (one that is stored already counts once), profile values
    replace stored ones of the same name.
    `context`: what else the request says (device, page, …). `time`: when it came, milliseconds since 1970.
    `exclude`: item ids that must not come back; `exclude_seen` adds every item of the history to them.
    `filter`: an expression over item attributes that every candidate must meet (`zhiyin.filters.grammar`); "" for none.
    `hydrate`: which fields of the items' cards to answer with; "*" is all of them. `diversity`: candidates are the best
    by score and difference, chosen among four times as many.
    `channels`: which to ask, by name; none: the service's choice. `merge`: how several become one list; None: the
    service's way. `deadline_ms`: what the store or a channel says later is left out; None: the service's limit.
    `explain`: say which items of the history each candidate is near to.
    """

    user: str = ""
    events: tuple[Event, ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    k: int = 100
    exclude: tuple[str, ...] = ()
    exclude_seen: bool = True
    filter: str = ""
    hydrate: tuple[str, ...] = ()
    time: int = 0
    diversity: Diversity | None = None
    channels: tuple[str, ...] = ()
    merge: Merge | None = None
    deadline_ms: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.user, str):
            raise RequestError(f"{self.user!r}", where="user", expected="text, as all ids are")
        for name in ("exclude", "hydrate", "channels"):
            if isinstance(value := getattr(self, name), str):
                raise RequestError(f"{value!r} is text", where=name, expected=f"a tuple of texts: ({value!r},)")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A channel that was asked and is not in the answer."""

    channel: str
    why: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """One answer: `items` by descending `scores` (in the order they were chosen, where diversity was asked). `channel`:
    what found them, several joined by "+"; `interests`: with which of the user's interests, `UNKNOWN` for none.

    `history`: how many events the tower saw. `unknown_items`: items of the request's own events that this release does
    not know, and so passed over. `cards`: as asked, None for an item without one; None where none were asked.
    `sources`: each candidate's, where channels were named or several asked. `dropped`: channels that were late or
    failed. `pulls`: where it was asked, the items of the history that are nearest to each candidate.
    `degraded`: what the store did not answer, and so is missing: "user" (the stored profile and events; what was seen
    is not known then), "cards" (nor is the answer diverse then).
    """

    release: str
    channel: str
    items: list[str]
    scores: list[float]
    interests: list[int]
    history: int
    unknown_items: list[str]
    cards: list[Card | None] | None
    sources: list[list[Source]] | None = None
    dropped: tuple[Dropped, ...] = ()
    pulls: list[list[Pull]] | None = None
    degraded: tuple[str, ...] = ()


Cards = list[Card | None] | Literal["unread"] | None
"""A draft's cards; None where none are needed."""

Fields = tuple[str, ...] | None
"""Names of the fields that cards are read with; None: all of them."""

Stored = TypeVar("Stored")

Slots = Mapping[str, str]
"""The channels that a request asks for, and which answers in the place of each."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """What was found for one request, before its cards say which of it is chosen."""

    found: Found
    items: list[str]
    channel: str
    sources: list[list[Source]] | None
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class _Answered:
    """One request's lists, by the channel that was asked, and which channels have none."""

    lists: Mapping[str, Found]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Retriever:
    """Answers from one store. `seen_length`: how many of a user's newest events are read, and count as seen. `online`:
    which channels there are, and which are asked where a request names none. While the store fails, or is late, answers
    come from what the requests hold, and say so; `outage` knows when it is asked again."""

    store: Store
    seen_length: int = 1000
    online: Online = STANDARD
    lanes: Lanes = field(default_factory=Lanes, repr=False)
    outage: Outage = field(default_factory=Outage, repr=False)

    def retrieve(self, release: Release, requests: Sequence[Request]) -> list[Candidates]:
        """An answer for each request, all from `release`.

        In the place of a channel that knows nothing of the user (for the towers: no event that the release knows, no
        profile value that a feature reads) the cold one answers: the popular items, if the service says no other.
        Raises `RequestError` naming the field for a k that is not 1 … the catalogue's size, a channel that is not there
        or that the release was published without, shares of a channel that is not asked, a filter that cannot be read
        or that this release cannot apply, and a diversity by what no candidate's card has; `ChannelError` where every
        channel is late or fails.

        Nothing is waited for beyond the deadline of the most patient of the requests, counted from here: half of it for
        what is stored of the users, three quarters for the channels where cards follow, else all of it.
        """
        started = time.monotonic()
        places = [f"requests[{at}]." if len(requests) > 1 else "" for at in range(len(requests))]
        for request, where in zip(requests, places, strict=True):
            _check(release, request, f"{where}k")
            self._check_channels(request, where)
        allowed = [_allowed(release, one, f"{where}filter") for one, where in zip(requests, places, strict=True)]
        deadlines = [self.online.deadline_ms if one.deadline_ms is None else one.deadline_ms for one in requests]
        most = longest(deadlines)
        states = self._states(requests, None if most is None else started + FOR_THE_USER * most / 1000)
        seekers = [_seeker(release, request, state) for request, state in zip(requests, states, strict=True)]
        seekers = [replace(seeker, allowed=rows) for seeker, rows in zip(seekers, allowed, strict=True)]
        slots = [self._slots(release, one, seeker) for one, seeker in zip(requests, seekers, strict=True)]
        if any(_needs_cards(one) for one in requests):
            deadlines = [FOR_CHANNELS * one for one in deadlines]
        wanted = [list(own.values()) for own in slots]
        asked = ask(self.online, self.lanes, release, seekers, wanted, deadlines, started)
        drafts = [
            self._draft(
                release, request, seekers[at].k, slots[at], _answered(asked, at, slots[at], request, places[at])
            )
            for at, request in enumerate(requests)
        ]
        fields = _card_fields(requests)
        cards = self._cards(requests, drafts, fields, None if most is None else started + most / 1000)
        return [
            _candidates(
                release,
                requests[at],
                seekers[at],
                draft,
                cards[at],
                fields,
                places[at],
                ("user",) * (states[at] is UNREAD),
            )
            for at, draft in enumerate(drafts)
        ]

    def _check_channels(self, request: Request, where: str) -> None:
        if request.deadline_ms is not None and not request.deadline_ms > 0:
            raise RequestError(
                f"{request.deadline_ms:g}", where=f"{where}deadline_ms", expected="a number above 0, in milliseconds"
            )
        for at, name in enumerate(request.channels):
            place = f"{where}channels[{at}]"
            if name in request.channels[:at]:
                raise RequestError(f"{name!r} stands here twice", where=place)
            try:
                self.online.channel(name)
            except SpecError as error:
                raise RequestError(error.what, where=place, expected=error.expected) from None
        names = request.channels or self.online.ask
        for name in request.merge.shares if isinstance(request.merge, Quota) else ():
            if name not in names:
                raise RequestError(
                    f"{name!r} is not asked", where=f"{where}merge.shares", expected=f"one of {', '.join(names)}"
                )

    def _slots(self, release: Release, request: Request, seeker: Seeker) -> Slots:
        """Each answers once, whatever it stands in for."""
        slots: dict[str, str] = {}
        for name in request.channels or self.online.ask:
            answers = name if knows(self.online, release, name, seeker) else self.online.cold
            if answers not in slots.values():
                slots[name] = answers
        return slots

    def _states(self, requests: Sequence[Request], until: float | None) -> list[UserState]:
        """What is stored of each request's user; `UNREAD` where the store did not say."""
        users = [request.user for request in requests if request.user]
        found = self._stored(lambda: self.store.read(users, self.seen_length), until) if users else []
        states = iter([UNREAD] * len(users) if found is None else found)
        return [next(states) if request.user else NOBODY for request in requests]

    def _stored(self, read: Callable[[], Stored], until: float | None) -> Stored | None:
        """What the store says by then, a moment of the monotonic clock; None where it does not. A read that is late
        goes on in its thread, and tells the outage how it ended."""
        if until is None:
            return self.outage.ask(read)
        try:
            future = self.lanes.start(STORE, lambda: self.outage.ask(read))
        except Busy:
            return None
        wait([future], max(0.0, until - time.monotonic()))
        return future.result() if future.done() else None

    def _draft(self, release: Release, request: Request, k: int, slots: Slots, answered: _Answered) -> _Draft:
        """One list of the channels' lists. One channel's alone is not merged, unless the request says how."""
        names, lists = request.channels or self.online.ask, answered.lists
        sources: list[list[Source]] | None = None
        if len(names) > 1 or request.merge is not None:
            both = merged(request.merge or self.online.merge, lists, slots, k)
            found, sources = both.found, both.sources
        else:
            ((slot, found),) = lists.items()
            if request.channels:
                sources = [[source(slots[slot], found, place)] for place in range(len(found.rows))]
        channel = "+".join(slots[slot] for slot in lists)
        return _Draft(found, release.items.ids(found.rows), channel, sources, answered.dropped)

    def _cards(
        self, requests: Sequence[Request], drafts: Sequence[_Draft], fields: Fields, until: float | None
    ) -> list[Cards]:
        """These fields of the cards of every draft that needs them, in one round trip; "unread" where the store did not
        say."""
        needed = [_needs_cards(request) for request in requests]
        wanted = [item for draft, there in zip(drafts, needed, strict=True) if there for item in draft.items]
        distinct = list(dict.fromkeys(wanted))
        found = self._stored(lambda: self.store.cards(distinct, fields), until) if distinct else []
        if found is None:
            return ["unread" if there else None for there in needed]
        cards = dict(zip(distinct, found, strict=True))
        return [
            [cards[item] for item in draft.items] if there else None
            for draft, there in zip(drafts, needed, strict=True)
        ]


def _check(release: Release, request: Request, where: str) -> None:
    size = len(release.items)
    if not 1 <= request.k <= size:
        raise RequestError(f"{request.k}", where=where, expected=f"1 to {size}, the catalogue of release {release.id}")


def _needs_cards(request: Request) -> bool:
    return bool(request.hydrate or request.diversity)


def _card_fields(requests: Sequence[Request]) -> Fields:
    """What of the cards any of these requests needs: what it shows, and by what its candidates should differ."""
    names = {name: None for request in requests for name in request.hydrate}
    names |= {request.diversity.by: None for request in requests if request.diversity is not None}
    return None if "*" in names else tuple(names)


def _allowed(release: Release, request: Request, where: str) -> Allowed | None:
    if not request.filter:
        return None
    try:
        return bitmap.allowed(release, request.filter)
    except RequestError as error:
        raise error.at(where) from None


def _seeker(release: Release, request: Request, state: UserState) -> Seeker:
    stored = {(event.item, event.time) for event in state.events} if request.events else set()
    new = (event for event in request.events if (event.item, event.time) not in stored)
    events = sorted((*state.events, *new), key=lambda event: event.time)  # stable: arrival breaks ties
    rows = release.items.rows([event.item for event in events])
    hidden = release.items.rows(request.exclude)
    if request.exclude_seen:
        hidden = np.concatenate([hidden, rows])
    since = release.since
    if since is not None:
        hidden = hidden[since.left(hidden)]  # nothing finds them anyway
    known = rows != UNKNOWN
    return Seeker(
        rows=rows[known],
        events=[event for event, there in zip(events, known, strict=True) if there],
        profile={**(state.profile or {}), **request.profile},
        context={**request.context, TIME: request.time, AGE: 0},
        hidden=np.unique(hidden[hidden != UNKNOWN]),
        k=min(request.k * POOL, len(release.items)) if request.diversity else request.k,
        gone=np.empty(0, np.int32) if since is None else since.gone,
    )


def _answered(asked: Asked, at: int, slots: Slots, request: Request, where: str) -> _Answered:
    """Raises `RequestError` where a channel that the request names cannot serve it, `ChannelError` where none did."""
    for name in slots.values():
        error = asked.failed.get(name)
        if isinstance(error, RequestError) and name in request.channels:
            raise error.at(f"{where}channels[{request.channels.index(name)}]")
    lists = {slot: asked.found[name][at] for slot, name in slots.items() if name in asked.found}
    dropped = tuple(Dropped(name, asked.why(name)) for name in slots.values() if name in asked.failed)
    if not lists:
        raise ChannelError(
            "no channel answered: " + "; ".join(f"{one.channel}: {one.why}" for one in dropped),
            where=where.rstrip("."),
            remedy="Ask again, with a later deadline_ms or other channels.",
        )
    return _Answered(lists, dropped)


def _candidates(
    release: Release,
    request: Request,
    seeker: Seeker,
    draft: _Draft,
    cards: Cards,
    fields: Fields,
    where: str,
    degraded: tuple[str, ...],
) -> Candidates:
    """The answer: of the draft, what diversity chooses. `fields`: those that the cards were read with."""
    if cards == "unread":
        draft = _only(draft, list(range(len(draft.items)))[: request.k])
        request, degraded = replace(request, diversity=None), (*degraded, "cards")
        cards = [None] * len(draft.items)
    scores = [round(float(score), 5) for score in draft.found.scores]
    if request.diversity is not None:
        places = _chosen(request.diversity, scores, cards or (), request.k, f"{where}diversity")
        draft, scores = _only(draft, places), [scores[at] for at in places]
        cards = [cards[at] for at in places] if cards else cards
    own = list(dict.fromkeys(event.item for event in request.events))
    unknown = [item for item, row in zip(own, release.items.rows(own), strict=True) if row == UNKNOWN]
    return Candidates(
        release=release.id,
        channel=draft.channel,
        items=draft.items,
        scores=scores,
        interests=draft.found.interests.tolist(),
        history=min(len(trained_rows(release, seeker)), release.schema.history_length),
        unknown_items=unknown,
        cards=_shown(cards, fields, request.hydrate) if request.hydrate and cards is not None else None,
        sources=draft.sources,
        dropped=draft.dropped,
        pulls=pulls(release, seeker, draft.found.rows) if request.explain else None,
        degraded=degraded,
    )


def _chosen(
    diversity: Diversity, scores: Sequence[float], cards: Sequence[Card | None], k: int, where: str
) -> list[int]:
    try:
        places: list[int] = diversity.places(scores, cards, k).tolist()
    except RequestError as error:
        raise error.at(where) from None
    return places


def _only(draft: _Draft, places: list[int]) -> _Draft:
    """These places of the draft, in this order."""
    sources = None if draft.sources is None else [draft.sources[at] for at in places]
    return replace(draft, found=draft.found.only(places), items=[draft.items[at] for at in places], sources=sources)


def _shown(cards: list[Card | None], fields: Fields, names: tuple[str, ...]) -> list[Card | None]:
    """The cards as a request asks for them; `fields`: those that they were read with, for all requests at once."""
    if "*" in names or (fields is not None and set(fields) == set(names)):
        return cards
    return [only(card, names) for card in cards]
