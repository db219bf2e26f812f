"""Row-wise rules against dense references: same steps where every row is touched, no step where none is."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.errors import SpecError
from zhiyin.learning import optimizers
from zhiyin.learning.examples import Examples
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.optimizers import LazyAdam, Optimizer, RowWiseAdagrad, Steps, summed_by_row
from zhiyin.models.youtube_dnn import YouTubeDNN

ROWS, DIM = 12, 5


def table(seed: int = 0, sparse: bool = True) -> nn.Embedding:
    torch.manual_seed(seed)
    return nn.Embedding(ROWS, DIM, sparse=sparse)


def backward(embedding: nn.Embedding, rows: Tensor, targets: Tensor) -> None:
    embedding.weight.grad = None
    ((embedding(rows) - targets) ** 2).sum().backward()


def test_lazy_adam_is_dense_adam_where_every_row_is_touched() -> None:
    ours, theirs = table(), table(sparse=False)
    lazy, dense = LazyAdam(ours.weight, 0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        rows = torch.cat([torch.randperm(ROWS, generator=generator), torch.tensor([1, 1, 3])])  # some more than once
        targets = torch.randn(len(rows), DIM, generator=generator)
        backward(ours, rows, targets)
        backward(theirs, rows, targets)
        lazy.step()
        dense.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-5)


def test_lazy_adam_counts_each_rows_own_steps() -> None:
    """A row touched every third step moves as under dense Adam that took only those steps."""
    ours, alone = table(), table(sparse=False)
    lazy, dense = LazyAdam(ours.weight, 0.01), torch.optim.Adam(alone.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for step in range(30):
        target = torch.randn(1, DIM, generator=generator)
        backward(ours, torch.tensor([4 if step % 3 == 0 else 2]), target)
        lazy.step()
        if step % 3 == 0:
            backward(alone, torch.tensor([4]), target)
            dense.step()
    torch.testing.assert_close(ours.weight[4], alone.weight[4], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("tables", ["lazy-adam", "rowwise-adagrad"])
def test_rates_fall_with_the_steps_that_are_left(tables: Literal["lazy-adam", "rowwise-adagrad"]) -> None:
    """Of a first step half as long where half is left, for tables and for dense parameters, and none without decay."""

    def moved(decay: Literal["none", "linear"], left: float) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.ModuleList([table(), nn.Linear(DIM, 1)])
        before = [parameter.detach().clone() for parameter in model.parameters()]
        steps = Optimizer(lr=0.01, table_lr=0.02, tables=tables, decay=decay).build(model)
        model[1](model[0](torch.tensor([1, 4]))).sum().backward()
        steps.step(left)
        return [after.detach() - start for after, start in zip(model.parameters(), before, strict=True)]

    for whole, half, without in zip(moved("linear", 1), moved("linear", 0.5), moved("none", 0.5), strict=True):
        assert whole.abs().max() > 0
        torch.testing.assert_close(half, whole / 2)
        torch.testing.assert_close(without, whole)


def test_training_tells_each_step_how_much_is_left(
    data: Prepared, split: Split, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(Steps, "step", lambda self, left: told.append(left))
    training = Training(epochs=2, batch_size=64, patience=0, device="cpu")
    fit(Plan(YouTubeDNN(dim=4, hidden=()), training=training), data, split, examples.schema, tmp_path)
    assert len(told) > 4
    assert told == pytest.approx([1 - step / len(told) for step in range(len(told))])


def test_rowwise_adagrad_is_its_formula() -> None:
    embedding = table()
    plain, sums = embedding.weight.detach().numpy().copy(), np.zeros(ROWS)
    rule = RowWiseAdagrad(embedding.weight, 0.1)
    random = np.random.default_rng(0)
    for _ in range(20):
        rows = random.integers(0, ROWS, 6)
        targets = random.standard_normal((6, DIM)).astype(np.float32)
        backward(embedding, torch.from_numpy(rows), torch.from_numpy(targets))
        gradient = np.zeros((ROWS, DIM))
        for row, target in zip(rows, targets, strict=True):
            gradient[row] += 2 * (plain[row] - target)
        for row in set(rows.tolist()):
            sums[row] += (gradient[row] ** 2).mean()
            plain[row] -= 0.1 * gradient[row] / (np.sqrt(sums[row]) + 1e-8)
        rule.step()
    np.testing.assert_allclose(embedding.weight.detach().numpy(), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", [LazyAdam, RowWiseAdagrad])
def test_rows_that_are_not_touched_stay_to_the_bit(rule: type[LazyAdam] | type[RowWiseAdagrad]) -> None:
    embedding = table()
    before = embedding.weight.detach().clone()
    steps = rule(embedding.weight, 0.1)
    for _ in range(3):
        backward(embedding, torch.tensor([3, 5, 5]), torch.ones(3, DIM))
        steps.step()
    untouched = [row for row in range(ROWS) if row not in (3, 5)]
    assert torch.equal(embedding.weight[untouched], before[untouched])
    assert not torch.equal(embedding.weight[[3, 5]], before[[3, 5]])


@pytest.mark.parametrize("rule", [LazyAdam, RowWiseAdagrad])
def test_a_row_with_a_gradient_of_nothing_stays(rule: type[LazyAdam] | type[RowWiseAdagrad]) -> None:
    """Padding reads a row and learns nothing from it: it must not coast on what it learned before."""
    embedding = table()
    steps = rule(embedding.weight, 0.1)
    backward(embedding, torch.tensor([2, 3]), torch.ones(2, DIM))
    steps.step()
    before, state = embedding.weight.detach().clone(), {name: part.clone() for name, part in steps.state().items()}
    embedding.weight.grad = None
    (embedding(torch.tensor([2])) * 0).sum().backward()
    steps.step()
    assert torch.equal(embedding.weight, before)
    for name, part in steps.state().items():
        assert torch.equal(part, state[name])


@pytest.mark.parametrize("rule", [LazyAdam, RowWiseAdagrad])
def test_a_dense_gradient_takes_the_same_step(rule: type[LazyAdam] | type[RowWiseAdagrad]) -> None:
    one, two = table(), table(sparse=False)
    steps = [rule(embedding.weight, 0.1) for embedding in (one, two)]
    for _ in range(3):
        for embedding, step in zip((one, two), steps, strict=True):
            backward(embedding, torch.arange(ROWS), torch.ones(ROWS, DIM))
            step.step()
    torch.testing.assert_close(one.weight, two.weight)


@given(st.lists(st.integers(0, 5), max_size=12))
def test_parts_are_summed_by_row(rows: list[int]) -> None:
    parts = torch.arange(1, len(rows) + 1, dtype=torch.float32)[:, None] * torch.tensor([[1.0, -2.0]])
    found, sums, once = summed_by_row(torch.tensor(rows, dtype=torch.int64), parts)
    assert found.tolist() == sorted(rows)
    assert once.tolist() == [float(at == 0 or row != found[at - 1]) for at, row in enumerate(found.tolist())]
    for row, total in zip(found.tolist(), sums, strict=True):
        whole = sum(part for where, part in zip(rows, parts, strict=True) if where == row)
        torch.testing.assert_close(total, whole)


@pytest.mark.parametrize("rule", [LazyAdam, RowWiseAdagrad])
def test_the_step_that_waits_for_no_device_is_the_same_step(
    rule: type[LazyAdam] | type[RowWiseAdagrad], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is not asked how many rows were touched: each stands as often as it was looked up, and moves once."""

    def elsewhere(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert weight.grad is not None
        return summed_by_row(weight.grad._indices()[0], weight.grad._values())

    one, two = table(), table()
    steps = [rule(embedding.weight, 0.1) for embedding in (one, two)]
    for rows in ([3, 5, 5, 2, 3, 3], [5], [7, 0, 7]):
        targets = torch.arange(len(rows) * DIM, dtype=torch.float32).view(len(rows), DIM)
        for embedding, step, touched in zip((one, two), steps, (optimizers._touched, elsewhere), strict=True):
            monkeypatch.setattr(optimizers, "_touched", touched)
            backward(embedding, torch.tensor(rows), targets)
            step.step()
    torch.testing.assert_close(one.weight, two.weight)
    for name, part in steps[0].state().items():
        torch.testing.assert_close(part, steps[1].state()[name])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, DIM, sparse=True)
        self.again = self.table
        self.linear = nn.Linear(DIM, 1)


def train(
    model: Small, steps: int, spec: Optimizer, seed: int, state: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    optimizer = spec.build(model)
    if state is not None:
        optimizer.load(state)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(ROWS, (6,), generator=generator)
        optimizer.zero_grad()
        (model.linear(model.table(rows) + model.again(rows)) ** 2).sum().backward()
        optimizer.step()
    return optimizer.state()


@pytest.mark.parametrize("tables", ["lazy-adam", "rowwise-adagrad"])
def test_the_state_is_all_that_going_on_needs(tables: Literal["lazy-adam", "rowwise-adagrad"]) -> None:
    spec = Optimizer(lr=0.01, table_lr=0.02, tables=tables)
    through, broken = Small(), Small()
    train(through, 5, spec, 1)
    state = {name: tensor.clone() for name, tensor in train(broken, 5, spec, 1).items()}
    weights = {name: tensor.clone() for name, tensor in broken.state_dict().items()}
    resumed = Small()
    resumed.load_state_dict(weights)
    after, again = Small(), resumed
    after.load_state_dict(weights)
    train(again, 5, spec, 2, state)
    train(after, 5, spec, 2)  # without its state it goes elsewhere
    once = Small()
    optimizer = spec.build(once)
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(5):
            rows = torch.randint(ROWS, (6,), generator=generator)
            optimizer.zero_grad()
            (once.linear(once.table(rows) + once.again(rows)) ** 2).sum().backward()
            optimizer.step()
    assert torch.equal(once.table.weight, again.table.weight)
    assert torch.equal(once.linear.weight, again.linear.weight)
    assert not torch.equal(once.table.weight, after.table.weight)


def test_each_rate_and_the_clip_have_an_effect() -> None:
    def moved(spec: Optimizer) -> tuple[float, float]:
        model, start = Small(), Small()
        train(model, 1, spec, 0)
        return (
            float((model.table.weight - start.table.weight).detach().abs().max()),
            float((model.linear.weight - start.linear.weight).detach().abs().max()),
        )

    table_slow, dense_slow = moved(Optimizer(lr=0.001, table_lr=0.001))
    assert moved(Optimizer(lr=0.001, table_lr=0.01))[0] == pytest.approx(10 * table_slow, rel=1e-3)
    assert moved(Optimizer(lr=0.01, table_lr=0.001))[1] == pytest.approx(10 * dense_slow, rel=1e-3)
    assert moved(Optimizer(clip=1e-9))[1] < dense_slow
    assert moved(Optimizer(weight_decay=0.5))[1] != moved(Optimizer())[1]


@pytest.mark.parametrize("change", [{"lr": 0.0}, {"table_lr": -1.0}, {"weight_decay": -0.1}, {"clip": -1.0}])
def test_rates_that_are_none_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="expected"):
        Optimizer(**change)  # type: ignore[arg-type]
