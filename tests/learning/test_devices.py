"""What a GPU would refuse or wait for, found without one: on torch's meta device a tensor has a device and no numbers,
so whatever mixes devices, or asks for a number on the way, is an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.features.schema import Schema
from zhiyin.learning import fit
from zhiyin.learning.base import Loss
from zhiyin.learning.distributed import ALONE
from zhiyin.learning.examples import Examples
from zhiyin.learning.fit import Plan, Training, TrainingRun
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import Uniform, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer, Steps
from zhiyin.models.base import ModelSpec
from zhiyin.models.mind import MIND
from zhiyin.models.youtube_dnn import YouTubeDNN

META = torch.device("meta")
LOSSES = [one for one in spec.examples("zhiyin.learning") if hasattr(one, "whole_catalogue")]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on the meta device. AdamW's own step is left out: fused, it has no kernel there."""
    monkeypatch.setattr(fit, "choose_device", lambda name: META)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)


def take_a_step(plan: Plan, data: Prepared, split: Split, schema: Schema, folder: Path) -> TrainingRun:
    run = TrainingRun(plan, data, split, schema, folder, ALONE, profile=False)
    drafts = run.drafts()
    loss = run.take(next(drafts))
    drafts.close()
    assert loss.device == META
    return run


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("model", spec.examples("zhiyin.models"), ids=repr)
def test_a_step_of_any_model_stays_on_its_device(
    model: ModelSpec, data: Prepared, split: Split, examples: Examples, tmp_path: Path
) -> None:
    plan = Plan(model, Uniform(16), training=Training(batch_size=32))
    run = take_a_step(plan, data, split, examples.schema, tmp_path)
    gradients = [one.grad for one in run.model.parameters() if one.grad is not None]
    assert gradients
    assert {one.device for one in gradients} == {META}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("model", [YouTubeDNN(dim=8), MIND(dim=8)], ids=["one vector", "several"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_step_of_any_loss_stays_on_its_device(
    loss: Loss, model: ModelSpec, data: Prepared, split: Split, examples: Examples, tmp_path: Path
) -> None:
    plan = Plan(
        model, WholeCatalogue() if loss.whole_catalogue else Uniform(16), loss, training=Training(batch_size=32)
    )
    take_a_step(plan, data, split, examples.schema, tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_so_does_one_with_one_number_of_state_a_row(
    data: Prepared, split: Split, examples: Examples, tmp_path: Path
) -> None:
    plan = Plan(
        YouTubeDNN(dim=8), Uniform(16), optimizer=Optimizer(tables="rowwise-adagrad"), training=Training(batch_size=32)
    )
    take_a_step(plan, data, split, examples.schema, tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_so_does_one_without_an_order_and_one_with_id_dropout(
    data: Prepared, split: Split, examples: Examples, tmp_path: Path
) -> None:
    for training in (Training(batch_size=32, unordered=True), Training(batch_size=32, id_dropout=0.5)):
        plan = Plan(YouTubeDNN(dim=8, pooling="mean"), Uniform(16), training=training)
        take_a_step(plan, data, split, examples.schema, tmp_path)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("wrong", [lambda loss: loss * float(loss.sum()), lambda loss: loss + torch.zeros(len(loss))])
def test_a_number_that_is_asked_for_and_a_tensor_from_elsewhere_are_found(
    wrong: Callable[[Tensor], Tensor],
    data: Prepared,
    split: Split,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tests above can fail: by a loss that looks at itself, and by one that adds a tensor of its own."""
    right = SampledSoftmax.__call__
    monkeypatch.setattr(SampledSoftmax, "__call__", lambda self, scores: wrong(right(self, scores)))
    with pytest.raises(RuntimeError, match="meta"):
        take_a_step(Plan(YouTubeDNN(dim=8), Uniform(16)), data, split, examples.schema, tmp_path)


@pytest.mark.parametrize("tables", ["lazy-adam", "rowwise-adagrad"])
def test_what_a_checkpoint_gives_back_goes_to_where_the_model_is(tables: Any, examples: Examples) -> None:
    """The count of AdamW's steps as well: it was made on the device, and a fused step takes it from nowhere else."""
    optimizer = Optimizer(tables=tables)
    model = YouTubeDNN(dim=8).build(examples.schema, 60)
    steps = optimizer.build(model)
    for one in model.parameters():
        one.grad = torch.zeros_like(one)
    steps.step()
    kept = steps.state()
    assert any(name.endswith(":step") for name in kept)
    moved = Steps(optimizer, model.to(META))
    moved.load(kept)
    assert {one.device for one in moved.state().values()} == {META}
