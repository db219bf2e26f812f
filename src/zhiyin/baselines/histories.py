"""Who met what, as sparse matrices: what every neighbourhood and factor baseline starts from."""

import numpy as np
import scipy.sparse as sparse

from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.evaluation.histories import pasts


def training_matrix(data: Prepared, split: Split) -> sparse.csr_matrix:
    """float32 [users, items] 1 where a training event of the user's is of the item, however often."""
    log, events = data.events, split.train[data.events.items[split.train] != UNKNOWN]
    ones = np.ones(len(events), np.float32)
    matrix = sparse.csr_matrix((ones, (log.users[events], log.items[events])), (len(data.users), len(data.items)))
    matrix.data[:] = 1.0
    return matrix


def history_matrix(log: EventLog, events: Events, catalogue_size: int, half_life: float = 0.0) -> sparse.csr_matrix:
    """float32 [n, items] 1 for each item before each of `events`, nothing later; with a `half_life`, an item last met
    that many events before the newest one weighs half."""
    queries, places = pasts(log, events)
    known = log.items[places] != UNKNOWN
    queries, places = queries[known], places[known]
    ages = events[queries] - 1 - places
    weights = 0.5 ** (ages / half_life) if half_life else np.ones(len(ages))
    key = queries * catalogue_size + log.items[places]
    order = np.lexsort((ages, key))  # of an item met several times, the latest counts
    latest = order[np.r_[True, key[order][1:] != key[order][:-1]]] if len(order) else order
    counts = np.bincount(queries[latest], minlength=len(events))
    return sparse.csr_matrix(
        (weights[latest].astype(np.float32), log.items[places[latest]], np.r_[0, np.cumsum(counts)]),
        (len(events), catalogue_size),
    )
