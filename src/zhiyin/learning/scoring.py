"""Trained towers as a scorer of the whole catalogue, exact and in blocks."""

import numpy as np
import torch
from torch import Tensor

from zhiyin.data.events import Events
from zhiyin.learning.examples import Examples
from zhiyin.models.base import RetrievalModel

BLOCK = 8192
"""Rows that the item tower sees at a time."""

SHORT = 8
"""Histories up to here are all alike."""


class TowerScorer:
    """Scores by the towers; the vectors of all items are computed once, when it is made."""

    def __init__(self, model: RetrievalModel, examples: Examples) -> None:
        self._model, self._examples = model, examples
        self.items = item_vectors(model, examples)

    @torch.no_grad()
    def users(self, events: Events) -> Tensor:
        """[n, h, d] the vectors of the users just before these events. Those with short histories are not made to wait
        for the padding of those with long ones: histories of like length (within a factor of two) are read together."""
        self._model.eval()
        lengths = self._examples.lengths(events)
        sizes = np.ceil(np.log2(np.maximum(lengths, SHORT))).astype(np.int64)
        groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
        found = [
            self._model.user_vectors(self._examples.queries(events[group], max(1, int(lengths[group].max()))))
            for group in groups
        ]
        order = torch.from_numpy(np.argsort(np.concatenate(groups))).to(found[0].device)
        return torch.cat(found)[order]

    def scores(self, events: Events) -> Tensor:
        """[n, m] each item's score for the user just before each event: the best of the user's interests."""
        return (self.users(events) @ self.items.T).amax(dim=1)


@torch.no_grad()
def item_vectors(model: RetrievalModel, examples: Examples, rows: Tensor | None = None) -> Tensor:
    """[m, d] these rows through the item tower; the whole catalogue when none are named."""
    model.eval()
    if rows is None:
        rows = torch.arange(examples.catalogue_size, device=examples.device)
    vectors = torch.empty(0, device=examples.device)
    for start in range(0, len(rows), BLOCK):
        part = model.item_vectors(examples.items(rows[start : start + BLOCK]))
        if start == 0:
            vectors = part.new_empty(len(rows), part.shape[1])  # filled, not joined: a catalogue is held once
        vectors[start : start + BLOCK] = part
    return vectors
