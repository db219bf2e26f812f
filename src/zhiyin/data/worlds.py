"""Synthetic worlds whose best possible answer is known: for tests, docs and benchmarks.

Each is a function of its seed and gives a prepared data set, and its truth where that is more than a formula. "Best
possible recall@k" is that of an oracle who knows how the world was made, for one held-out event of each user.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from zhiyin.data.draws import COUNTRIES, DAY, DEVICES, HOUR, START, Probabilities, ids, mostly, refuse, zipf
from zhiyin.data.events import EventLog, Events, Times
from zhiyin.data.prepared import Prepared
from zhiyin.data.realistic import Realistic, realistic
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Rows, Vocabulary
from zhiyin.errors import SpecError

__all__ = [
    "COUNTRIES",
    "DAY",
    "DEVICES",
    "HOUR",
    "START",
    "Drifting",
    "Log",
    "Realistic",
    "Tastes",
    "drifting",
    "log",
    "random_world",
    "realistic",
    "ring",
    "ring_recall",
    "tastes",
    "write_log",
    "zipf",
]

_CHUNK = 1 << 20


def ring(users: int, items: int, events_per_user: int, noise: float, seed: int) -> Prepared:
    """Each user walks round a ring: the next item is the one after the last, or, with probability `noise`, any.

    Best possible recall@k, nothing removed as seen: 1 − noise + noise · k / items (`ring_recall`), by the item after
    the last and any k − 1 others. Nothing but the last item says anything.
    """
    refuse(users=users, items=items, events_per_user=events_per_user)
    if not 0 <= noise <= 1:
        raise SpecError(f"noise = {noise}", where="ring", expected="between 0 and 1")
    random = np.random.default_rng(seed)
    walked = np.empty((users, events_per_user), np.int64)
    walked[:, 0] = random.integers(items, size=users)
    for step in range(1, events_per_user):
        jumps = random.random(users) < noise
        walked[:, step] = np.where(jumps, random.integers(items, size=users), (walked[:, step - 1] + 1) % items)
    return _prepared(walked, items, START + np.arange(events_per_user) * HOUR)


def ring_recall(items: int, noise: float, k: int) -> float:
    """The best possible recall@k in `ring`."""
    return 1 - noise + noise * min(k, items) / items


def random_world(users: int, items: int, events_per_user: int, seed: int) -> Prepared:
    """Every event is any item, whoever and whenever. Nothing can be learned: recall@k is k / items for all."""
    refuse(users=users, items=items, events_per_user=events_per_user)
    random = np.random.default_rng(seed)
    return _prepared(
        random.integers(items, size=(users, events_per_user)), items, START + np.arange(events_per_user) * HOUR
    )


@dataclass(frozen=True, slots=True)
class Tastes:
    """`shares` [users, groups]: how a user's events divide over groups; `groups` [items]: which one an item belongs to;
    `within` [items]: an item's share of its group's events."""

    data: Prepared
    shares: Probabilities
    within: Probabilities
    groups: NDArray[np.int64]

    def preferences(self, users: Rows | NDArray[np.int64]) -> Probabilities:
        """[n, items] p(item | user): how likely each item is an event of the user's, nothing removed as seen."""
        return np.asarray(self.shares[users][:, self.groups] * self.within)

    def best_recall(self, events: Events, k: int, *, seen: bool) -> float:
        """The expected recall@k of the oracle who ranks by `preferences`, at these events, one an event.

        `seen`: whether items of the history may be recommended. In a world without `repeats` they never happen again.
        """
        log, total = self.data.events, 0.0
        for start in range(0, len(events), 256):
            block = events[start : start + 256]
            likely = self.preferences(log.users[block])
            if not seen:
                for row, event in enumerate(block):
                    likely[row, log.history(int(event))] = 0
            best = np.partition(likely, -k, axis=1)[:, -k:] if k < likely.shape[1] else likely
            total += float((best.sum(1) / likely.sum(1)).sum())
        return total / len(events)


def tastes(
    users: int,
    items: int,
    groups: int,
    events_per_user: int,
    seed: int,
    *,
    skew: float = 1.0,
    interests: int = 1,
    repeats: bool = False,
) -> Tastes:
    """Items belong to groups, users like `interests` of them; both popularities are Zipf: rank⁻ˢᵏᵉʷ.

    A popular group is liked by more users, a popular item takes more of its group's events; so what a user will do
    next depends on popularity as much as on taste, and a model that forgets popularity (in-batch softmax without logQ
    scores items by p(item | user) / p(item)) ranks the items of a group at random.
    Without `repeats` no user meets an item twice, each drawn by preference among the rest.
    Item columns: category (the group), tags (the group's and some of no meaning), price (log-normal, its median the
    group's). User columns: country (the favourite group's for 4 of 5), age. Event column: device (which interest the
    event is of, for 4 of 5). Times are a clock's, within 60 days.
    """
    refuse(users=users, items=items, groups=groups, events_per_user=events_per_user, interests=interests)
    if groups > items or interests > groups:
        raise SpecError(
            f"{items} items, {groups} groups, {interests} interests",
            where="tastes",
            expected="no more groups than items, and no more interests than groups",
        )
    random = np.random.default_rng(seed)
    group = random.permutation(np.arange(items) % groups)
    within = np.empty(items)
    for one in range(groups):
        within[random.permutation(np.flatnonzero(group == one))] = zipf(int((group == one).sum()), skew)
    liked = _without_replacement(np.tile(zipf(groups, skew), (users, 1)), interests, random)
    shares = np.zeros((users, groups))
    np.put_along_axis(shares, liked, 1 / interests, axis=1)
    chosen = np.empty((users, events_per_user), np.int64)
    for start in range(0, users, 512):
        part = slice(start, start + 512)
        likely = shares[part][:, group] * within
        if repeats:
            chosen[part] = _draw(likely, events_per_user, random)
        else:
            _refuse_short(likely, events_per_user)
            chosen[part] = _without_replacement(likely, events_per_user, random)
    times = np.sort(START + random.integers(60 * DAY, size=chosen.shape), axis=1)
    favourites = liked[:, 0]
    data = _prepared(
        chosen,
        items,
        times,
        event_columns={"device": _devices(chosen, group, liked, random)},
        user_columns={
            "country": [COUNTRIES[one] for one in mostly(favourites, len(COUNTRIES), random)],
            "age": random.integers(18, 80, users),
        },
        item_columns=_item_columns(group, groups, random),
    )
    return Tastes(data, shares, within, group)


@dataclass(frozen=True, slots=True)
class Drifting:
    """`peaks` [items]: when an item is most popular; `heights` [items]: how popular it is then; `width`: how long it
    takes (one standard deviation) to become so and to be forgotten. All in milliseconds."""

    data: Prepared
    peaks: Times
    heights: NDArray[np.float64]
    width: int
    end: int

    def popularity(self, times: Times) -> Probabilities:
        """[n, items] how likely each item is an event of any user's, at each time."""
        return _popularity(times, self.peaks, self.heights, self.width)

    def best_recall(self, times: Times, k: int) -> float:
        """The expected recall@k of the oracle who ranks by popularity of the hour; for events at these times."""
        likely = self.popularity(times)
        return float(np.sort(likely, axis=1)[:, -k:].sum(1).mean())


def drifting(
    users: int, items: int, events_per_user: int, seed: int, *, days: int = 60, width: float = 5.0, skew: float = 0.5
) -> Drifting:
    """Items rise and fall: each has one peak in the log's `days` (or shortly before or after), `width` days wide.

    All users are alike, and only time matters: the best answer at any time is the popularity of that time, at the end
    that of the end. All-time popularity is far from it, and so is a model that cannot tell an event's age.
    Events are spread evenly over the days; times are a clock's. An event is drawn by its hour's popularity.
    """
    refuse(users=users, items=items, events_per_user=events_per_user, days=days)
    random = np.random.default_rng(seed)
    wide, span = round(width * DAY), days * DAY
    peaks = START + random.integers(-2 * wide, span + 2 * wide, items)
    heights = random.permutation(zipf(items, skew))
    times = np.sort(START + random.integers(span, size=(users, events_per_user)), axis=1)
    hours = (times.ravel() - START) // HOUR
    chosen = np.empty(times.size, np.int64)
    order = np.argsort(hours, kind="stable")
    present, firsts = np.unique(hours[order], return_index=True)
    for hour, run in zip(present, np.split(order, firsts[1:]), strict=True):
        likely = _popularity(np.array([START + hour * HOUR + HOUR // 2]), peaks, heights, wide)
        chosen[run] = _draw(likely, len(run), random)[0]
    return Drifting(_prepared(chosen.reshape(times.shape), items, times), peaks, heights, wide, START + span)


@dataclass(frozen=True, slots=True)
class Log:
    """[n] events by time: user and item rows, times in milliseconds."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    times: Times


def log(users: int, events: int, items: int, seed: int, *, skew: float = 1.0, days: int = 90) -> Log:
    """A large log to measure speed with, all at once: Zipf items (rank⁻ˢᵏᵉʷ), users and times uniform."""
    parts = list(_chunks(users, events, items, seed, skew, days))
    return Log(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "items", "times")))


def write_log(path: Path, users: int, events: int, items: int, seed: int, *, skew: float = 1.0, days: int = 90) -> None:
    """The same log as a Parquet file: user "u17", item "i42", time in milliseconds; in memory that does not grow."""
    names = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64())])
    part_path = path.with_name(f".{path.name}.part")
    with pa.parquet.ParquetWriter(
        part_path, names, compression="zstd", use_dictionary=False, column_encoding={"time": "DELTA_BINARY_PACKED"}
    ) as writer:
        for part in _chunks(users, events, items, seed, skew, days):
            columns = [ids("u", part.users), ids("i", part.items), pa.array(part.times)]
            writer.write_batch(pa.record_batch(columns, schema=names))
    part_path.rename(path)


def _popularity(times: Times, peaks: Times, heights: NDArray[np.float64], width: int) -> Probabilities:
    away = (np.asarray(times)[:, None] - peaks) / width
    weights = heights * np.exp(-(away**2) / 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _chunks(users: int, events: int, items: int, seed: int, skew: float, days: int) -> Iterator[Log]:
    refuse(users=users, events=events, items=items, days=days)
    random = np.random.default_rng(seed)
    steps = np.cumsum(zipf(items, skew))
    names = random.permutation(items)
    done = 0
    while done < events:
        size = min(_CHUNK, events - done)
        first, last = (START + days * DAY * at // events for at in (done, done + size))
        ranks = np.searchsorted(steps, random.random(size) * steps[-1], side="right")
        times = np.sort(random.integers(first, last, size)) if last > first else np.full(size, first)
        yield Log(random.integers(users, size=size), names[np.minimum(ranks, items - 1)], times)
        done += size


def _prepared(
    chosen: NDArray[np.int64],
    items: int,
    times: Times,
    *,
    event_columns: dict[str, object] | None = None,
    user_columns: dict[str, object] | None = None,
    item_columns: dict[str, object] | None = None,
) -> Prepared:
    """`chosen` [users, events of each]: items in order; `times` of the same shape, or [events of each]."""
    users, each = chosen.shape
    return Prepared(
        users=Vocabulary.of(f"u{row}" for row in range(users)),
        items=Vocabulary.of(f"i{row}" for row in range(items)),
        events=EventLog.of(
            np.repeat(np.arange(users, dtype=np.int32), each),
            chosen.ravel().astype(np.int32),
            np.broadcast_to(times, chosen.shape).ravel().astype(np.int64),
            user_count=users,
            columns=Table.of(event_columns) if event_columns else None,
        ),
        user_table=Table.of(user_columns or {}, users),
        item_table=Table.of({"title": [f"item {row}" for row in range(items)], **(item_columns or {})}),
    )


def _item_columns(group: NDArray[np.int64], groups: int, random: np.random.Generator) -> dict[str, object]:
    noise = random.integers(20, size=(len(group), 2))
    return {
        "category": [f"group {one}" for one in group],
        "tags": [[f"of {one}", *sorted({f"tag {a}", f"tag {b}"})] for one, (a, b) in zip(group, noise, strict=True)],
        "price": np.exp(random.normal(size=len(group)) * 0.3 + 1 + 2 * group / groups),
    }


def _devices(
    chosen: NDArray[np.int64], group: NDArray[np.int64], liked: NDArray[np.int64], random: np.random.Generator
) -> list[str]:
    interest = (group[chosen][:, :, None] == liked[:, None, :]).argmax(2)
    return [DEVICES[one] for one in mostly(interest.ravel(), len(DEVICES), random)]


def _draw(likely: NDArray[np.float64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """[n, size] draws from each row of weights, independent."""
    steps = np.cumsum(likely, axis=1)
    wanted = random.random((len(likely), size)) * steps[:, -1:]
    return np.stack([np.searchsorted(s, w, side="right") for s, w in zip(steps, wanted, strict=True)])


def _without_replacement(likely: NDArray[np.float64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """[n, size] draws from each row of weights, one after the other, none twice: the order of the Gumbel-max trick."""
    with np.errstate(divide="ignore"):
        keys = np.log(likely) + random.gumbel(size=likely.shape)
    best = np.argpartition(-keys, size - 1, axis=1)[:, :size]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(keys, best, 1), axis=1), 1)


def _refuse_short(likely: NDArray[np.float64], size: int) -> None:
    fewest = int((likely > 0).sum(1).min())
    if size > fewest:
        raise SpecError(
            f"{size} events a user without repeats, of {fewest} items liked",
            where="tastes",
            expected="fewer events than the items a user likes",
            remedy="Give more items or interests, or set repeats = True.",
        )
