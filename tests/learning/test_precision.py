"""Mixed precision: the towers' layers compute in bfloat16, what is learned and kept is float32."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from zhiyin.data import worlds
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Fitted, Plan, Training, fit
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import Uniform
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.dssm import DSSM
from zhiyin.models.mind import MIND
from zhiyin.models.sasrec import SASRec

MODELS = (DSSM(dim=16, hidden=(32,)), MIND(dim=16, interests=2, hidden=(32,)), SASRec(dim=16, blocks=1, heads=1))


@pytest.fixture(scope="module")
def ring() -> tuple[Prepared, Split]:
    data = worlds.ring(300, 60, 14, 0.1, seed=0)
    return data, LeaveLastOut().split(data.events, data.clock)


def trained(
    world: tuple[Prepared, Split], folder: Path, model: Any, precision: Literal["float32", "bf16"]
) -> tuple[Fitted, set[torch.dtype]]:
    """The fitted model, and what its linear layers gave while it learned."""
    data, split = world
    training = Training(epochs=6, batch_size=256, measure=5, device="cpu", precision=precision)
    plan = Plan(model, Uniform(32), SampledSoftmax(), Optimizer(lr=0.01, table_lr=0.02), training)
    given: set[torch.dtype] = set()

    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if module.training and isinstance(module, nn.Linear) and isinstance(output, torch.Tensor):
            given.add(output.dtype)

    handle = nn.modules.module.register_module_forward_hook(watch)
    try:
        return fit(plan, data, split, Schema(history_length=10).fit(data, split), folder), given
    finally:
        handle.remove()


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_layers_compute_in_half_and_the_model_learns_as_well(
    ring: tuple[Prepared, Split], tmp_path: Path, model: Any
) -> None:
    whole, of_whole = trained(ring, tmp_path / "whole", model, "float32")
    half, of_half = trained(ring, tmp_path / "half", model, "bf16")
    assert (of_whole, of_half) == ({torch.float32}, {torch.bfloat16})
    assert half.recall == pytest.approx(whole.recall, abs=0.05)
    assert half.recall > 0.5  # 5 of 60 at random are .08
    best = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "half")]
    assert all(best[1][name].dtype == tensor.dtype for name, tensor in best[0].items())
    assert any(not torch.equal(best[1][name], tensor) for name, tensor in best[0].items())


def test_it_is_part_of_what_a_run_is(ring: tuple[Prepared, Split], tmp_path: Path) -> None:
    fitted, _ = trained(ring, tmp_path, MODELS[0], "bf16")
    opened = Fitted.open(tmp_path, 60)
    assert opened.plan == fitted.plan
    assert opened.plan.training.precision == "bf16"
