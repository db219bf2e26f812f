"""Step rules: AdamW for dense parameters; for embedding tables, rules that touch only the rows of the batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError


@dataclass(frozen=True, slots=True)
class Optimizer:
    """`lr` for dense parameters (AdamW with `weight_decay`), `table_lr` for embedding tables, by `tables`:
    "lazy-adam" (moments move only for rows that are touched) or "rowwise-adagrad" (one number of state a row).
    `clip`: dense gradients are scaled down to this norm; 0 leaves them. `decay`: "linear" lets both rates fall to 0
    over all of training's steps, "none" leaves them.
    """

    lr: float = 0.002
    table_lr: float = 0.006
    tables: Literal["lazy-adam", "rowwise-adagrad"] = "lazy-adam"
    weight_decay: float = 0.0
    clip: float = 0.0
    decay: Literal["none", "linear"] = "linear"

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.table_lr > 0 and math.isfinite(self.lr + self.table_lr)):
            raise SpecError(f"lr = {self.lr}, table_lr = {self.table_lr}", expected="numbers above 0")
        if self.weight_decay < 0 or self.clip < 0:
            raise SpecError(f"weight_decay = {self.weight_decay}, clip = {self.clip}", expected="0 or above")

    def state_floats(self, rows: int, dim: int) -> int:
        """How many numbers a table [rows, dim] keeps besides itself."""
        return rows if self.tables == "rowwise-adagrad" else rows * (2 * dim + 1)

    def build(self, model: nn.Module) -> "Steps":
        return Steps(self, model)


class Steps:
    """The optimisers of one model: AdamW for its dense parameters, a row-wise rule for its sparse tables."""

    def __init__(self, spec: Optimizer, model: nn.Module) -> None:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
        named = dict(model.named_parameters())
        self._tables = {name: p for name, p in named.items() if id(p) in tables}
        self._dense = {name: p for name, p in named.items() if id(p) not in tables}
        self._clip, self._spec = spec.clip, spec
        self._adamw = (
            torch.optim.AdamW(self._dense.values(), lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
            if self._dense
            else None
        )
        rule = LazyAdam if spec.tables == "lazy-adam" else RowWiseAdagrad
        self._rules = {name: rule(table, spec.table_lr) for name, table in self._tables.items()}

    def zero_grad(self) -> None:
        for parameter in (*self._tables.values(), *self._dense.values()):
            parameter.grad = None

    def step(self, left: float = 1.0) -> None:
        """One step with the gradients that are there. `left`: the share of training to come, for `decay`."""
        scale = left if self._spec.decay == "linear" else 1.0
        if self._adamw is not None:
            if self._clip:
                nn.utils.clip_grad_norm_(self._dense.values(), self._clip)
            self._adamw.param_groups[0]["lr"] = self._spec.lr * scale
            self._adamw.step()
        for rule in self._rules.values():
            rule.lr = self._spec.table_lr * scale
            rule.step()

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must keep, by name."""
        tensors = {f"{name}:{part}": t for name, rule in self._rules.items() for part, t in rule.state().items()}
        if self._adamw is not None:
            for name, parameter in self._dense.items():
                for part, value in self._adamw.state.get(parameter, {}).items():
                    tensors[f"{name}:{part}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        for name, rule in self._rules.items():
            rule.load({part: tensors[f"{name}:{part}"] for part in rule.state()})
        if self._adamw is not None:
            for name, parameter in self._dense.items():
                parts = {k.rpartition(":")[2]: v for k, v in tensors.items() if k.rpartition(":")[0] == name}
                moved = {part: value.to(parameter.device, copy=True) for part, value in parts.items()}
                self._adamw.state[parameter] = moved  # its count of steps, too: a fused step wants all in one place


class RowWiseAdagrad:
    """Adagrad with one accumulator a row, as FBGEMM defines it: G_r += mean over d of g², w_r −= lr·g / (√G_r + ε)."""

    def __init__(self, table: Tensor, lr: float, eps: float = 1e-8) -> None:
        self._table, self.lr, self._eps = table, lr, eps
        self._sums = torch.zeros(len(table), device=table.device)

    @torch.no_grad()
    def step(self) -> None:
        found = _touched(self._table)
        if found is None:
            return
        rows, gradients, once = found
        sums = self._sums[rows] + gradients.square().mean(1)
        self._sums[rows] = sums
        self._table.index_add_(0, rows, gradients * (-self.lr * once / (sums.sqrt() + self._eps))[:, None])

    def state(self) -> dict[str, Tensor]:
        return {"sums": self._sums}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self._sums.copy_(tensors["sums"])


class LazyAdam:
    """Adam (Kingma & Ba 2014) whose moments and bias correction count only the steps that touched a row: a row that is
    touched at every step moves exactly as under dense Adam, one that is not, or whose gradient is all zero (padding),
    stays still."""

    def __init__(self, table: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self._table, self.lr, self._betas, self._eps = table, lr, betas, eps
        self._steps = torch.zeros(len(table), device=table.device)
        self._first, self._second = torch.zeros_like(table), torch.zeros_like(table)

    @torch.no_grad()
    def step(self) -> None:
        found = _touched(self._table)
        if found is None:
            return
        rows, gradients, once = found
        one, two = self._betas
        touched = gradients.any(1).to(gradients.dtype)
        steps = self._steps[rows] + touched
        first = self._first[rows].lerp_(gradients, (touched * (1 - one))[:, None])
        kept = 1 - touched * (1 - two)
        second = self._second[rows].mul_(kept[:, None]).addcmul_(gradients, gradients, value=1 - two)
        self._steps[rows], self._first[rows], self._second[rows] = steps, first, second
        counted = steps.clamp(min=1)
        scale = (-self.lr * once * touched / (1 - one**counted))[:, None]
        deviation = (second / (1 - two**counted)[:, None]).sqrt_().add_(self._eps)
        self._table.index_add_(0, rows, first.mul_(scale).div_(deviation))

    def state(self) -> dict[str, Tensor]:
        return {"steps": self._steps, "first": self._first, "second": self._second}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for mine, name in ((self._steps, "steps"), (self._first, "first"), (self._second, "second")):
            mine.copy_(tensors[name])


def _touched(table: Tensor) -> tuple[Tensor, Tensor, Tensor | float] | None:
    """The rows [n] that a table's gradient touches, the gradient of each [n, d], and 1 where a row stands for the first
    time, 0 where again; all rows of a dense gradient; None without one.

    On a CPU each row stands once. How many rows that makes, a GPU would have to be waited for; there a row stands as
    often as it was looked up, each time with its whole gradient, so that what is written to it is the same each time.
    """
    gradient = table.grad
    if gradient is None:
        return None
    if not gradient.is_sparse:
        return torch.arange(len(table), device=table.device), gradient, 1.0
    if gradient.device.type == "cpu":
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values(), 1.0
    return summed_by_row(gradient._indices()[0], gradient._values())


def summed_by_row(rows: Tensor, parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [n] in order, as often as they are there; for each the sum [n, d] of all its parts [n, d]; and 1.0 [n] where
    it is the first of its kind, else 0.0. Asks for no number on the way."""
    rows, order = rows.sort(stable=True)
    first = torch.cat([torch.ones_like(rows[:1]), (rows[1:] != rows[:-1]).to(rows.dtype)])
    group = first.cumsum(0) - 1
    sums = torch.zeros_like(parts).index_add_(0, group, parts.index_select(0, order))
    return rows, sums.index_select(0, group), first.to(parts.dtype)
