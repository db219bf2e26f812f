"""Asking the channels: each once for all seekers that want it, side by side where there are several."""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from zhiyin.channels.base import Found, Seeker, visible
from zhiyin.channels.lanes import MOST, Busy, Lanes
from zhiyin.channels.online import Online
from zhiyin.errors import ChannelError, RequestError
from zhiyin.release import Release

logger = logging.getLogger("zhiyin")

Places = Sequence[int]
"""Numbers of seekers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came back: by channel, the candidates of each seeker that wanted it, and why a channel has none."""

    found: Mapping[str, Mapping[int, Found]]
    failed: Mapping[str, Exception]

    def why(self, channel: str) -> str:
        """Why it has none, for whom asked."""
        error = self.failed[channel]
        known = isinstance(error, RequestError | Late)
        return str(error) if known else f"it failed ({type(error).__name__}); the service's log says more"


class Late(Exception):  # noqa: N818 – a state, and nobody's error
    """A channel did not answer in time."""


def ask(
    online: Online,
    lanes: Lanes,
    release: Release,
    seekers: Sequence[Seeker],
    wanted: Sequence[Sequence[str]],
    deadlines: Sequence[float],
    started: float,
) -> Asked:
    """`wanted`: the channels that each seeker wants; `deadlines`: the milliseconds that each can wait from the moment
    `started` (of the monotonic clock) on, 0 for as long as it takes; a channel has as long as the most patient of those
    that want it.

    Where nobody wants more than one, and all can wait, it is all done here and now, and what fails raises.
    """
    by_channel: dict[str, list[int]] = {}
    for place, names in enumerate(wanted):
        for name in names:
            by_channel.setdefault(name, []).append(place)
    works = {
        name: partial(_find, online, release, name, [seekers[place] for place in places])
        for name, places in by_channel.items()
    }
    if max(map(len, wanted), default=0) <= 1 and not any(deadlines):
        results: dict[str, Sequence[Found]] = {}
        failed: dict[str, Exception] = {}
        for name, work in works.items():
            try:
                results[name] = work()
            except RequestError as error:
                failed[name] = error
    else:
        patience = {name: longest([deadlines[place] for place in places]) for name, places in by_channel.items()}
        results, failed = _side_by_side(lanes, works, patience, started)
    return Asked(
        {name: dict(zip(by_channel[name], found, strict=True)) for name, found in results.items()},
        failed,
    )


def knows(online: Online, release: Release, name: str, seeker: Seeker) -> bool:
    """Whether the channel has something to go by. One that fails to say so is asked: then it fails or answers."""
    try:
        return online.channel(name).knows(release, seeker)
    except Exception as error:
        logger.warning("channel %s does not say whether it knows a user", name, exc_info=error)
        return True


def _find(online: Online, release: Release, name: str, seekers: Sequence[Seeker]) -> Sequence[Found]:
    """What a channel finds. One that is not ours is not taken at its word."""
    found = online.channel(name).find(release, release.tables.get(name, {}), seekers)
    if name not in online.channels:
        return found
    if len(found) != len(seekers):
        raise ChannelError(f"{len(found)} lists for {len(seekers)} seekers", where=f"channel {name}")
    return [_checked(one, release, seeker) for one, seeker in zip(found, seekers, strict=True)]


def _checked(found: Found, release: Release, seeker: Seeker) -> Found:
    """The first k of it that are rows, may be seen, and were not said before."""
    found = found.only((found.rows >= 0) & (found.rows < len(release.items)))
    found = found.only(visible(found.rows, seeker))
    _, first = np.unique(found.rows, return_index=True)
    return found.only(np.sort(first)[: seeker.k])


def longest(deadlines: Sequence[float]) -> float | None:
    """The milliseconds of the most patient; None where one waits for all, or nobody is there."""
    return None if 0 in deadlines else max(deadlines, default=None)


def _side_by_side(
    lanes: Lanes,
    works: Mapping[str, "partial[Sequence[Found]]"],
    patience: Mapping[str, float | None],
    started: float,
) -> tuple[dict[str, Sequence[Found]], dict[str, Exception]]:
    failed: dict[str, Exception] = {}
    futures: dict[str, Future[Sequence[Found]]] = {}
    for name, work in works.items():
        try:
            futures[name] = lanes.start(name, work)
        except Busy:
            failed[name] = Late(f"busy: {MOST} earlier calls have not come back")
    results: dict[str, Sequence[Found]] = {}
    for name, future in futures.items():
        most = patience[name]
        wait = None if most is None else max(0.0, started + most / 1000 - time.monotonic())
        try:
            results[name] = future.result(wait)
        except Exception as error:
            failed[name] = error if future.done() else Late(f"late: no answer within {most:g} ms")
    for name, why in failed.items():
        if not isinstance(why, RequestError | Late):
            logger.warning("channel %s failed", name, exc_info=why)
    return results, failed
