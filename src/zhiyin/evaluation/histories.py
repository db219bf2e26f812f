"""Whole histories as flat pairs of (query, event), for what reads all of them at once."""

import numpy as np

from zhiyin.data.events import EventLog, Events


def pasts(log: EventLog, events: Events) -> tuple[Events, Events]:
    """Every event before each of `events` [n] of the same user, oldest first: query numbers 0 … n-1, event numbers."""
    starts = log.offsets[log.users[events]]
    return runs(starts, events)


def runs(starts: Events, stops: Events) -> tuple[Events, Events]:
    """The numbers starts[i] … stops[i]-1 of every run i, one after the other: run numbers, and the numbers."""
    lengths = stops - starts
    which = np.repeat(np.arange(len(starts)), lengths)
    firsts = np.cumsum(lengths) - lengths
    return which, np.arange(lengths.sum()) - np.repeat(firsts - starts, lengths)
