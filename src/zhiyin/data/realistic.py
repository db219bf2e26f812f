"""A world like a real one, of any size, whose true preferences are known: `realistic`.

What a log has that hurts: few items take most events, what is popular changes, a user has several interests, a few
users act most and some never, and what is shown is not what is liked.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from zhiyin.data.draws import COUNTRIES, DAY, DEVICES, START, Probabilities, ids, mostly, refuse, zipf
from zhiyin.data.events import Times
from zhiyin.data.sources import Source
from zhiyin.errors import SpecError

Numbers = NDArray[np.int64]
"""Users or items: 17 is the user "u17"."""

FLOOR = 0.05
"""What an item keeps of its height long before and after its peak."""

IDLE = 0.02
"""The share of users who never act."""

_CHUNK = 1 << 19
_EVENTS = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("time", pa.int64()),
        ("device", pa.dictionary(pa.int8(), pa.string())),
    ]
)
_SHOWN = pa.schema(list(_EVENTS)[:3])


@dataclass(frozen=True, slots=True)
class Shown:
    """[n] events by time; `interests`: which of the user's the event is of, -1 where of none; `others` [n, s]: items
    shown at the same time and not chosen, -1 where the draw was the chosen one."""

    users: Numbers
    items: Numbers
    times: Times
    interests: Numbers
    others: Numbers


@dataclass(frozen=True, slots=True)
class Realistic:
    """`groups` [items]: which one an item belongs to; `heights` [items]: its popularity at its peak; `peaks` [items]:
    when that is, in days; `width`: how many days (one standard deviation) it takes to rise and to be forgotten.
    `liked` [users, interests]: a user's groups; `shares` [interests]: how the user's events divide over them; `noise`:
    the share of events that are of none, but of any item by popularity; `active` [a]: the users who act, the most
    active first. `events`, `days`, `shown`, `seed`: how large the log is, how long, how many others are shown with
    each event, and which of all such logs it is.
    """

    groups: Numbers
    heights: NDArray[np.float64]
    peaks: NDArray[np.float64]
    width: float
    liked: Numbers
    shares: Probabilities
    noise: float
    active: Numbers
    events: int
    days: int
    shown: int
    seed: int

    def popularity(self, day: int) -> Probabilities:
        """[items] p(item) at any time of a day, of an event that is of no interest, and of what is shown."""
        weights = self.heights * (FLOOR + np.exp(-(((day + 0.5 - self.peaks) / self.width) ** 2) / 2))
        return np.asarray(weights / weights.sum())

    def preferences(self, users: Numbers, times: Times) -> Probabilities:
        """[n, items] p(item | user, time): how likely each item is what the user does then."""
        likely = np.empty((len(users), len(self.groups)))
        days = (np.asarray(times) - START) // DAY
        for day in np.unique(days):
            popularity = self.popularity(int(day))
            within = popularity / np.bincount(self.groups, popularity)[self.groups]
            for place in np.flatnonzero(days == day):
                taste = np.zeros(int(self.groups.max()) + 1)
                np.add.at(taste, self.liked[users[place]], self.shares)
                likely[place] = self.noise * popularity + (1 - self.noise) * taste[self.groups] * within
        return likely

    def best_recall(self, users: Numbers, times: Times, k: int) -> float:
        """The expected recall@k of the oracle who ranks by `preferences`, nothing removed as seen; one event each."""
        return float(np.sort(self.preferences(users, times), axis=1)[:, -k:].sum(1).mean())

    def log(self) -> Iterator[Shown]:
        """The log, some hundred thousand events at a time; the same at every call."""
        random = np.random.default_rng((self.seed, 1))
        order = np.argsort(self.groups, kind="stable")
        starts = np.searchsorted(self.groups[order], np.arange(self.groups.max() + 2))
        weekly = np.cumsum([0.0, *(1.3 if day % 7 in (5, 6) else 1.0 for day in range(self.days))])
        bounds = np.round(weekly / weekly[-1] * self.events).astype(np.int64)
        for day, count in enumerate(np.diff(bounds)):
            steps = np.concatenate([[0.0], np.cumsum(self.popularity(day)[order])])
            pieces = -(-count // _CHUNK)
            for piece in range(pieces):
                size = count * (piece + 1) // pieces - count * piece // pieces
                when = START + day * DAY + _of_day((piece + np.sort(random.random(size))) / pieces)
                yield self._piece(random, order, starts, steps, when)

    def write(self, folder: Path) -> Source:
        """Write events, items, users (and impressions, if any are shown) as Parquet into `folder`, in memory that does
        not grow with the events; what `prepare` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            events = stack.enter_context(pa.parquet.ParquetWriter(folder / "events.parquet", _EVENTS))
            if self.shown:
                impressions = stack.enter_context(pa.parquet.ParquetWriter(folder / "impressions.parquet", _SHOWN))
            random = np.random.default_rng((self.seed, 2))
            for part in self.log():
                users, items, times = ids("u", part.users), ids("i", part.items), pa.array(part.times)
                device = pa.array(mostly(part.interests, len(DEVICES), random), pa.int8())
                columns = [users, items, times, pa.DictionaryArray.from_arrays(device, list(DEVICES))]
                events.write_batch(pa.record_batch(columns, schema=_EVENTS))
                for others in part.others.T:
                    real = pa.array(others >= 0)
                    columns = [users.filter(real), ids("i", others[others >= 0]), times.filter(real)]
                    impressions.write_batch(pa.record_batch(columns, schema=_SHOWN))
        pa.parquet.write_table(self._item_table(), folder / "items.parquet")
        pa.parquet.write_table(self._user_table(), folder / "users.parquet")
        return Source(
            folder / "events.parquet",
            folder / "items.parquet",
            folder / "users.parquet",
            time_unit="ms",
            columns=("device",),
        )

    def _piece(
        self,
        random: np.random.Generator,
        order: Numbers,
        starts: Numbers,
        steps: NDArray[np.float64],
        times: Times,
    ) -> Shown:
        """Events at these times of a day; `steps` [items + 1]: its popularities, cumulated in `order`, by group."""
        size = len(times)
        users = self.active[(random.random(size) ** 2 * len(self.active)).astype(np.int64)]
        interests = np.searchsorted(np.cumsum(self.shares)[:-1], random.random(size), side="right")
        chosen = self.liked[users, interests]
        none = random.random(size) < self.noise
        interests = np.where(none, -1, interests)
        first = np.where(none, 0, starts[chosen])
        last = np.where(none, len(order), starts[chosen + 1])
        items = order[_between(steps, first, last, random)]
        every = np.zeros((size, self.shown), np.int64)
        others = order[_between(steps, every, every + len(order), random)]
        return Shown(users, items, times, interests, np.where(others == items[:, None], -1, others))

    def _item_table(self) -> pa.Table:
        random = np.random.default_rng((self.seed, 3))
        count, length = len(self.groups), int(self.groups.max()) + 1
        return pa.table(
            {
                "item": ids("i", np.arange(count)),
                "title": ids("item ", np.arange(count)),
                "category": ids("group ", self.groups),
                "brand": ids("brand ", mostly(self.groups * 3 + random.integers(3, size=count), 3 * length, random)),
                "price": np.exp(random.normal(size=count) * 0.3 + 1 + 2 * self.groups / length),
            }
        )

    def _user_table(self) -> pa.Table:
        random = np.random.default_rng((self.seed, 4))
        country = pa.array(mostly(self.liked[:, 0], len(COUNTRIES), random), pa.int8())
        return pa.table(
            {
                "user": ids("u", np.arange(len(self.liked))),
                "country": pa.DictionaryArray.from_arrays(country, list(COUNTRIES)),
                "age": random.integers(18, 80, len(self.liked)),
            }
        )


def realistic(
    users: int,
    items: int,
    events: int,
    seed: int,
    *,
    groups: int = 100,
    interests: int = 3,
    days: int = 60,
    skew: float = 1.0,
    width: float = 10.0,
    noise: float = 0.1,
    shown: int = 1,
) -> Realistic:
    """A large log with its truth, in memory O(users + items): `write` it, or ask what each user really prefers.

    An event: a user (the n-th most active with a probability ~ n^-½) at some time (busy at noon and on weekends) has
    one of `interests` in mind (the k-th with a probability ~ 1/k), and takes an item of that group by the popularity of
    the day; or, with probability `noise`, any item by it. Items are Zipf (rank⁻ˢᵏᵉʷ) at their peaks, which lie all over
    the `days`, and `width` days wide; popularity steps from day to day.
    Item columns: title, category (the group), brand (of the group for 4 of 5), price (log-normal, its median the
    group's). User columns: country (the first interest's for 4 of 5), age. Event column: device (the interest's for 4
    of 5). `shown` items with each event are shown and not chosen: any, by popularity of the day.
    """
    refuse(users=users, items=items, events=events, groups=groups, interests=interests, days=days)
    if groups > items or not 0 <= noise <= 1 or shown < 0 or width <= 0:
        raise SpecError(
            f"{items} items, {groups} groups, noise = {noise}, shown = {shown}, width = {width}",
            where="realistic",
            expected="no more groups than items, noise between 0 and 1, shown ≥ 0, width > 0",
        )
    random = np.random.default_rng((seed, 0))
    popular = np.cumsum(zipf(groups, skew / 2))
    drawn = np.searchsorted(popular[:-1], random.random(items - groups), side="right")
    return Realistic(
        groups=random.permutation(np.concatenate([np.arange(groups), drawn])),
        heights=random.permutation(zipf(items, skew)),
        peaks=random.uniform(-width, days + width, items),
        width=width,
        liked=np.searchsorted(popular[:-1], random.random((users, interests)), side="right"),
        shares=zipf(interests, 1.0),
        noise=noise,
        active=random.permutation(users)[: max(1, round(users * (1 - IDLE)))],
        events=events,
        days=days,
        shown=shown,
        seed=seed,
    )


def _of_day(parts: NDArray[np.float64]) -> Times:
    """When this part of a day's events is over: few at night, most at noon (a triangle)."""
    return np.asarray(np.where(parts < 0.5, np.sqrt(parts / 2), 1 - np.sqrt((1 - parts) / 2)) * (DAY - 1), np.int64)


def _between(steps: NDArray[np.float64], first: Numbers, last: Numbers, random: np.random.Generator) -> Numbers:
    """A place for each pair: first ≤ place < last, as likely as its step is wide."""
    low, high = steps[first], steps[last]
    places = np.searchsorted(steps, low + random.random(low.shape) * (high - low), side="right") - 1
    return np.clip(places, first, last - 1)
