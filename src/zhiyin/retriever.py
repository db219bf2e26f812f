"""The online path, in one file: a function of (release, store, requests).

Filters → one batched store read → rows → the same encode as in training → user tower → one batched index call (one for
each filter) → what is seen or excluded drops out → cards by one more store read → where it is asked, the diverse among
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zhiyin.channels.base import Found, Seeker
from zhiyin.channels.deep import Deep
from zhiyin.channels.diversity import POOL, Diversity
from zhiyin.channels.popular import Popular
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import RequestError
from zhiyin.features.schema import AGE, TIME
from zhiyin.filters import bitmap
from zhiyin.indexes.base import Allowed
from zhiyin.release import Release
from zhiyin.stores.base import Card, Event, Store, UserState
from zhiyin.stores.outage import Outage

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


@dataclass(frozen=True, slots=True)
class Candidates:
    """One answer: `items` by descending `scores` (in the order they were chosen, where diversity was asked); `channel`
    and `interests` say what found them.

    `history`: how many events the tower saw. `unknown_items`: items of the request's own events that this release does
    not know, and so passed over. `cards`: as asked, None for an item without one; None where none were asked.
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
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retriever:
    """Answers from one store. `seen_length`: how many of a user's newest events are read, and count as seen. While the
    store fails, answers come from what the requests hold, and say so; `outage` knows when it is asked again."""

    store: Store
    seen_length: int = 1000
    outage: Outage = field(default_factory=Outage)

    def retrieve(self, release: Release, requests: Sequence[Request]) -> list[Candidates]:
        """An answer for each request, all from `release`.

        A user of whom nothing is known (no event that the release knows, no profile value that a feature reads) gets
        the popular items. Raises `RequestError` naming the field for a k that is not 1 … the catalogue's size, and for
        a filter that cannot be read or that this release cannot apply, and for a diversity by what no candidate's card
        has.
        """
        for i, request in enumerate(requests):
            _check(release, request, f"requests[{i}].k" if len(requests) > 1 else "k")
        allowed = [
            _allowed(release, request, f"requests[{i}].filter" if len(requests) > 1 else "filter")
            for i, request in enumerate(requests)
        ]
        states = self._states(requests)
        seekers = [_seeker(release, request, state) for request, state in zip(requests, states, strict=True)]
        seekers = [replace(seeker, allowed=rows) for seeker, rows in zip(seekers, allowed, strict=True)]
        known = [_is_known(release, seeker) for seeker in seekers]
        deep = iter(Deep().find(release, [s for s, there in zip(seekers, known, strict=True) if there]))
        popular = iter(Popular().find(release, [s for s, there in zip(seekers, known, strict=True) if not there]))
        answers = [
            _answer(release, request, seeker, "deep" if there else "popular", next(deep if there else popular))
            for request, seeker, there in zip(requests, seekers, known, strict=True)
        ]
        answers = [replace(a, degraded=("user",)) if s is UNREAD else a for a, s in zip(answers, states, strict=True)]
        return self._hydrated(requests, answers)

    def _states(self, requests: Sequence[Request]) -> list[UserState]:
        """What is stored of each request's user; `UNREAD` where the store did not say."""
        users = [request.user for request in requests if request.user]
        found = self.outage.ask(lambda: self.store.read(users, self.seen_length))
        states = iter([UNREAD] * len(users) if found is None else found)
        return [next(states) if request.user else NOBODY for request in requests]

    def _hydrated(self, requests: Sequence[Request], answers: list[Candidates]) -> list[Candidates]:
        """The answers with the cards that were asked, and no more of the items than were asked."""
        read = [bool(r.hydrate or r.diversity) for r in requests]
        wanted = [item for a, there in zip(answers, read, strict=True) if there for item in a.items]
        distinct = list(dict.fromkeys(wanted))
        found = self.outage.ask(lambda: self.store.cards(distinct)) if distinct else []
        if found is None:
            return [_without_cards(a, r) if there else a for r, a, there in zip(requests, answers, read, strict=True)]
        cards = dict(zip(distinct, found, strict=True))
        return [
            _with_cards(a, r, [cards[item] for item in a.items], f"requests[{at}]." if len(requests) > 1 else "")
            if there
            else a
            for at, (r, a, there) in enumerate(zip(requests, answers, read, strict=True))
        ]


def _check(release: Release, request: Request, where: str) -> None:
    size = len(release.items)
    if not 1 <= request.k <= size:
        raise RequestError(f"{request.k}", where=where, expected=f"1 to {size}, the catalogue of release {release.id}")


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
    known = rows != UNKNOWN
    return Seeker(
        rows=rows[known],
        events=[event for event, there in zip(events, known, strict=True) if there],
        profile={**(state.profile or {}), **request.profile},
        context={**request.context, TIME: request.time, AGE: 0},
        hidden=np.unique(hidden[hidden != UNKNOWN]),
        k=min(request.k * POOL, len(release.items)) if request.diversity else request.k,
    )


def _is_known(release: Release, seeker: Seeker) -> bool:
    told = {feature.column or feature.name for feature in release.schema.user}
    return bool(len(seeker.rows)) or any(seeker.profile.get(name) is not None for name in told)


def _answer(release: Release, request: Request, seeker: Seeker, channel: str, found: Found) -> Candidates:
    own = list(dict.fromkeys(event.item for event in request.events))
    unknown = [item for item, row in zip(own, release.items.rows(own), strict=True) if row == UNKNOWN]
    return Candidates(
        release=release.id,
        channel=channel,
        items=release.items.ids(found.rows),
        scores=[round(float(score), 5) for score in found.scores],
        interests=found.interests.tolist(),
        history=min(len(seeker.rows), release.schema.history_length),
        unknown_items=unknown,
        cards=None,
    )


def _with_cards(answer: Candidates, request: Request, cards: Sequence[Card | None], where: str) -> Candidates:
    if request.diversity is not None:
        try:
            places = request.diversity.places(answer.scores, cards, request.k).tolist()
        except RequestError as error:
            raise error.at(f"{where}diversity") from None
        answer = replace(
            answer,
            items=[answer.items[at] for at in places],
            scores=[answer.scores[at] for at in places],
            interests=[answer.interests[at] for at in places],
        )
        cards = [cards[at] for at in places]
    return replace(answer, cards=[_fields(card, request.hydrate) for card in cards]) if request.hydrate else answer


def _without_cards(answer: Candidates, request: Request) -> Candidates:
    return replace(
        answer,
        items=answer.items[: request.k],
        scores=answer.scores[: request.k],
        interests=answer.interests[: request.k],
        cards=[None] * min(request.k, len(answer.items)) if request.hydrate else None,
        degraded=(*answer.degraded, "cards"),
    )


def _fields(card: Card | None, names: Sequence[str]) -> Card | None:
    if card is None or "*" in names:
        return card
    return {name: card[name] for name in names if name in card}
