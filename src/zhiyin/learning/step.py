"""One step: towers over distinct rows, scores and losses a chunk of examples at a time, gradients back, rows moved.

The towers' outputs are cut from their graph. Each chunk's loss is pushed back to them at once, so that scores of one
chunk are all that is ever held; then the towers are pushed back through with what came together.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.learning.base import Batch, Loss, Scores
from zhiyin.learning.distributed import Processes
from zhiyin.learning.examples import Examples
from zhiyin.learning.optimizers import Steps
from zhiyin.models.base import Items, RetrievalModel, taken
from zhiyin.models.inputs import gathered

CHUNK_SCORES = {"cpu": 1 << 20, "cuda": 1 << 26, "mps": 1 << 24}
"""Scores that are held at once: on a CPU, what stays in its caches."""


class Clock:
    """Where a step's time goes, by name, in seconds; costs nothing when it is off."""

    def __init__(self, device: torch.device, *, on: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._on = device, on

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Count what the block takes as `name`."""
        if not self._on:
            yield
            return
        started = self._now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class Stepper:
    """Takes steps of one model. `id_dropout`: how likely an item of a step is shown to the item tower as a new one, by
    its features alone; as a positive and as a negative alike, since the tower sees it once. `half`: the towers'
    products are in bfloat16 where autocast has them so; weights, vectors, scores and steps stay float32."""

    def __init__(
        self,
        model: RetrievalModel,
        loss: Loss,
        optimizer: Steps,
        examples: Examples,
        crew: Processes,
        clock: Clock,
        id_dropout: float = 0.0,
        *,
        half: bool = False,
    ) -> None:
        self.model, self.loss, self.optimizer, self.examples = model, loss, optimizer, examples
        self.crew, self.clock, self.id_dropout, self.half = crew, clock, id_dropout, half

    def step(self, batch: Batch, left: float = 1.0) -> Tensor:
        """The batch's mean loss, weighted by reward, not yet waited for. `batch.runs` are this process's share of the
        examples; all else in `batch` is of all. `left`: the share of training that is left."""
        with gathered(self.model):
            loss = self._gradients(batch)
        with self.clock.time("optimizer"):
            self._add_gradients()
            self.optimizer.step(left)
        return loss

    def _shown(self, rows: Tensor) -> Items:
        """These items as the item tower is shown them in this step."""
        items = self.examples.items(rows)
        if not self.id_dropout:
            return items
        hidden = torch.rand(len(rows), device=rows.device) < self.id_dropout
        return replace(items, rows=torch.where(hidden, UNKNOWN, items.rows))

    def _precision(self, kind: str) -> AbstractContextManager[object]:
        return torch.autocast(kind, torch.bfloat16) if self.half else nullcontext()

    def _gradients(self, batch: Batch) -> Tensor:
        """The batch's mean loss, whose gradients have come to the parameters."""
        kind = batch.rows.device.type
        with self.clock.time("item tower"), self._precision(kind):
            mine = self.crew.share(len(batch.rows))
            items = self.model.item_vectors(self._shown(batch.rows[mine])).float()
            everything = self.crew.gathered(items.detach(), len(batch.rows)).requires_grad_()
        with self.clock.time("user tower"), self._precision(kind):
            users = self.model.run_vectors(*batch.runs).float()
            asked = users.detach().requires_grad_()
        with self.clock.time("scores and loss"):
            loss = self._compare(batch, asked, everything)
        with self.clock.time("backward"):
            assert asked.grad is not None  # noqa: S101 – every loss reads the users
            assert everything.grad is not None  # noqa: S101
            self.crew.add([everything.grad])
            self.optimizer.zero_grad()
            torch.autograd.backward([users, items], [asked.grad, everything.grad[mine]])
        return loss

    def _compare(self, batch: Batch, users: Tensor, items: Tensor) -> Tensor:
        """The mean loss of this process's examples over all processes' weights; gradients come to users and items."""
        share = self.crew.share(len(batch.positives))
        first = share.start
        negatives = items.detach()[batch.negatives].requires_grad_()
        total = batch.weights.sum().clamp(min=1e-12)
        width = users.shape[1] if self.model.served else 1
        size = max(1, CHUNK_SCORES.get(users.device.type, 1 << 20) // max(1, len(negatives) * width))
        summed = users.new_zeros(())
        for start in range(first, share.stop, size):
            part = slice(start, min(start + size, share.stop))
            low, high = int(batch.hit_bounds[part.start]), int(batch.hit_bounds[part.stop])
            example, negative = batch.hits[:, low:high]
            positives = taken(items, batch.positives[part])
            own = None if batch.own is None else batch.own[part]
            asked = users[part.start - first : part.stop - first]
            scores = Scores(
                users=self.model.label_vectors(asked, positives),
                positives=positives,
                negatives=negatives,
                positive_logq=batch.positive_logq[part],
                negative_logq=batch.negative_logq,
                hits=torch.stack([example - start, negative]),
                own=None if own is None else taken(items, own.clamp(min=0)),
                own_real=None if own is None else own >= 0,
                catalogue_size=self.examples.catalogue_size,
                interests=asked if width > 1 else None,
            )
            loss = (self.loss(scores) * batch.weights[part]).sum() / total
            loss.backward()  # type: ignore[no-untyped-call]
            summed += loss.detach()
        if negatives.grad is not None:
            items.grad = torch.zeros_like(items) if items.grad is None else items.grad
            items.grad.index_add_(0, batch.negatives, negatives.grad)
        return summed

    def _add_gradients(self) -> None:
        if self.crew.count == 1:
            return
        dense = []
        for parameter in self.model.parameters():
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = self.crew.add_sparse(parameter.grad)
            else:
                dense.append(parameter.grad)
        self.crew.add(dense)


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of the whole."""
    whole = sum(seconds.values()) or 1.0
    return {name: part / whole for name, part in seconds.items()}
