"""Whether a training run can fit, worked out before anything is allocated."""

from dataclasses import dataclass
from pathlib import Path

import torch

from zhiyin.errors import TrainingError
from zhiyin.features.schema import Schema
from zhiyin.learning.batches import Shape
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.base import ModelSpec

FLOAT = 4
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a run cannot do without, by what they are for. The true need is larger, by the model's activations."""

    weights: int
    state: int
    batch: int
    negatives: int

    @property
    def total(self) -> int:
        return self.weights + self.state + self.batch + self.negatives


def need(
    model: ModelSpec,
    schema: Schema,
    catalogue_size: int,
    optimizer: Optimizer,
    shape: Shape,
    batch: int,
    negatives: int,
) -> Need:
    """The least memory that a run with this batch size and this many negatives takes. Nothing is allocated."""
    with torch.device("meta"):
        towers = model.build(schema, catalogue_size)
    tables = [m.weight for m in towers.modules() if isinstance(m, torch.nn.Embedding) and m.sparse]
    shared = {id(table) for table in tables}
    dense = sum(p.numel() for p in towers.parameters() if id(p) not in shared)
    dim = max((int(table.shape[1]) for table in tables), default=1)
    weights = sum(p.numel() for p in towers.parameters())
    events = batch + (batch // shape.span + 1) * shape.reach
    return Need(
        weights=FLOAT * weights,
        state=FLOAT * (2 * dense + sum(optimizer.state_floats(*table.shape) for table in tables)),
        batch=FLOAT * dim * (events + 4 * batch),
        negatives=FLOAT * negatives * (4 * dim + 3),
    )


def refuse_what_cannot_fit(found: Need, available: int, batch: int, negatives: int) -> None:
    """Raises `TrainingError` with the numbers when a run needs more than is there."""
    if found.total <= available:
        return
    parts = {
        "weights": found.weights,
        "optimiser state": found.state,
        f"a batch of {batch:,}": found.batch,
        f"{negatives:,} negatives": found.negatives,
    }
    raise TrainingError(
        f"training needs at least {_size(found.total)}: "
        + ", ".join(f"{_size(size)} for {what}" for what, size in parts.items()),
        where="fit",
        expected=f"at most the {_size(available)} that are free",
        remedy="Lower training.batch_size, the number of negatives, or model.dim; "
        'optimizer.tables = "rowwise-adagrad" keeps the least state.',
    )


def available(device: torch.device) -> int:
    """Free bytes where the model will live."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62  # no way to know here: nothing is refused
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
