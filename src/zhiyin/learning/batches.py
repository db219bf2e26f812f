"""Which examples make up a step, in which order, and what of them can be worked out before the step.

A batch is made of runs: stretches of one user's events, whose examples share the history before them, so that each
event is read once and not once for every example that has it in its window. With one example a run the order is a full
shuffle. All of this is numpy on a thread of its own, ahead of the device.
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from zhiyin.data.events import EventLog, Events
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.learning.base import Negatives, Numbers, Positives
from zhiyin.learning.distributed import ALONE, Processes

AHEAD = 2
"""Batches that are made ahead of the one that is used."""

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Shape:
    """How runs are cut. `length`: of a history; `span`: the most events from a run's first example to its last;
    `sequential`: a run with its history is never longer than `length`. `baskets`: events of one user and one time are
    not each other's history. `ends` [users]: where given, order means nothing: an example's history is all that its
    user did before that, itself left out."""

    length: int
    span: int
    sequential: bool
    baskets: bool = False
    ends: Events | None = None

    @property
    def reach(self) -> int:
        """How many events before its first example a run holds at most."""
        return max(1, self.length + 1 - self.span) if self.sequential else self.length


@dataclass(frozen=True, slots=True)
class Stretch:
    """r runs of like length, as numbers: `history` [r, P] item rows, `UNKNOWN` after the last; `starts`, `widths` [r]:
    the first event of each and how many there are; `places` [r, T], `requests` [n], `own` [r, T]: as in `Runs`;
    `events` [n]: the examples."""

    history: Numbers
    starts: Events
    widths: Numbers
    places: Numbers
    requests: Numbers
    events: Events
    own: Numbers | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A step before any tensor: `events` [n] its examples; `stretches` with those of them that are this process's;
    `rows` [u] the distinct items of the step, `positives` [n] and `negatives` [m] places among them; `hits` [2, a] the
    pairs (example, negative) that are none, by example; `own` [n, q] places of each example's own negatives."""

    events: Events
    stretches: tuple[Stretch, ...]
    drawn: Negatives
    rows: Numbers
    positives: Numbers
    negatives: Numbers
    own: Numbers | None
    hits: Numbers


def epoch_order(log: EventLog, events: Events, shape: Shape, cap: int, random: np.random.Generator) -> Events:
    """The examples of one epoch: runs in random order, each run's examples in theirs.

    `events` ascend. A user with more than `span` events is cut at places drawn anew each time. `cap`: at most so many
    of each user's examples, drawn at random; 0 is all of them.
    """
    if cap:
        events = _capped(log.users[events].astype(np.int64), events, cap, random)
    users = log.users[events].astype(np.int64)
    within = events - log.offsets[users]
    long = np.diff(log.offsets)[users] > shape.span
    shift = random.integers(shape.span, size=len(log.offsets) - 1)[users]
    blocks = np.where(long, (within + shift) // shape.span, 0)
    first = np.flatnonzero(np.r_[True, (users[1:] != users[:-1]) | (blocks[1:] != blocks[:-1])])
    sizes = np.diff(np.r_[first, len(events)])
    chosen = random.permutation(len(first))
    starts, lengths = first[chosen], sizes[chosen]
    return events[_ranges(starts, lengths)]


def draft(
    log: EventLog,
    events: Events,
    shape: Shape,
    draw: Callable[[Positives], Negatives],
    crew: Processes = ALONE,
) -> Draft:
    """The step that learns from these examples, [n], whose runs stand together as `epoch_order` puts them. `crew`: who
    takes which part of them."""
    shares = [Processes(rank, crew.count).share(len(events)) for rank in range(crew.count)]
    parts = [stretch(log, events[share], shape) for share in shares]
    events = np.concatenate([one.events for part in parts for one in part])
    positives = Positives(events, log.users[events].astype(np.int64), log.items[events].astype(np.int64))
    drawn = draw(positives)
    own = np.zeros(0, np.int64) if drawn.own is None else drawn.own[drawn.own != UNKNOWN]
    rows, places = np.unique(np.concatenate([positives.rows, drawn.rows, own]), return_inverse=True)
    negatives = places[len(events) : len(events) + len(drawn.rows)]
    hits = pairs(positives.rows, drawn.rows)
    if drawn.owners is not None:
        of_others = hits[:, positives.users[hits[0]] != drawn.owners[hits[1]]]
        hits = _both(of_others, pairs(positives.users, drawn.owners), len(drawn.rows))
    return Draft(events, parts[crew.rank], drawn, rows, places[: len(events)], negatives, _own(drawn.own, places), hits)


def stretch(log: EventLog, events: Events, shape: Shape) -> tuple[Stretch, ...]:
    """These examples as runs, those of like length (within a factor of two) together."""
    owners, first, last = _runs(log.users[events].astype(np.int64), events, shape.span)
    asked = log.moments(first) if shape.baskets and not shape.sequential else first
    if shape.ends is not None:
        asked = last = shape.ends[log.users[first]]
    starts = np.maximum(asked - shape.reach, log.offsets[log.users[first]])
    sizes = np.ceil(np.log2(np.maximum(last - starts, 8))).astype(np.int64)
    found = []
    for size in np.unique(sizes):
        chosen = sizes == size
        renumbered = np.cumsum(chosen) - 1
        mine = chosen[owners]
        found.append(_stretch(log, events[mine], renumbered[owners[mine]], starts[chosen], last[chosen], shape))
    return tuple(found)


def pairs(left: Numbers, right: Numbers) -> Numbers:
    """[2, a] every (i, j) with left[i] = right[j], by i."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    low = np.searchsorted(ordered, left, side="left")
    counts = np.searchsorted(ordered, left, side="right") - low
    return np.stack([np.repeat(np.arange(len(left)), counts), order[_ranges(low, counts)]])


def ahead(make: Callable[[], Iterator[Made]]) -> Generator[Made]:
    """What `make` yields, made on a thread of its own, `AHEAD` of who uses it; what goes wrong there is raised here."""
    made: queue.Queue[Made | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(one: Made | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                made.put(one, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for one in make():
                if not put(one):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="zhiyin-batches", daemon=True)
    thread.start()
    try:
        while (one := made.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        stopped.set()
        thread.join()


def _own(own: Numbers | None, places: Numbers) -> Numbers | None:
    """[n, q] the places of own negatives, the last ones of `places`; `UNKNOWN` where there is none."""
    if own is None:
        return None
    placed = np.full(own.shape, UNKNOWN, np.int64)
    real = own != UNKNOWN
    placed[real] = places[len(places) - int(real.sum()) :]
    return placed


def _runs(users: Numbers, events: Events, span: int) -> tuple[Numbers, Events, Events]:
    """[n] each example's run, [r] each run's first and last example."""
    cut = np.r_[True, (users[1:] != users[:-1]) | (events[1:] <= events[:-1])]
    since = events - events[cut][np.cumsum(cut) - 1]
    new = cut | np.r_[True, since[1:] // span != since[:-1] // span]
    first = np.flatnonzero(new)
    return np.cumsum(new) - 1, events[first], events[np.r_[first[1:], len(events)] - 1]


def _stretch(log: EventLog, events: Events, owners: Numbers, starts: Events, last: Events, shape: Shape) -> Stretch:
    widths = last - starts
    steps = np.arange(max(1, int(widths.max())))
    real = steps < widths[:, None]
    history = np.where(real, log.items[np.where(real, starts[:, None] + steps, 0)], UNKNOWN).astype(np.int64)
    firsts = np.searchsorted(owners, np.arange(len(starts)))
    slots = np.arange(len(events)) - firsts[owners]
    places = np.zeros((len(starts), int(slots.max()) + 1), np.int64)
    requests = owners * places.shape[1] + slots
    if shape.ends is not None:
        own = np.full_like(places, -1)
        own[owners, slots] = np.maximum(events - starts[owners], -1)
        places[owners, slots] = widths[owners]
        return Stretch(history, starts, widths, places, requests, events, own)
    seen = np.maximum(log.moments(events), starts[owners]) if shape.baskets else events
    places[owners, slots] = seen - starts[owners]
    return Stretch(history, starts, widths, places, requests, events)


def _capped(users: Numbers, events: Events, cap: int, random: np.random.Generator) -> Events:
    shuffled = random.permutation(len(events))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    _, counts = np.unique(users, return_counts=True)
    ranks = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    return events[np.sort(by_user[ranks < cap])]


def _ranges(starts: Numbers, lengths: Numbers) -> Numbers:
    """starts[0], starts[0] + 1, … (lengths[0] of them), then the same from starts[1], …"""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def _both(one: Numbers, other: Numbers, width: int) -> Numbers:
    """The pairs of two lists without one in common, by example: both ascend, so this is a merge."""
    keys = np.concatenate([one[0] * width + one[1], other[0] * width + other[1]])
    keys.sort(kind="stable")
    return np.stack(np.divmod(keys, width))
