"""A step asks the device for no number: on a GPU each such question makes the host wait."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from zhiyin import products, spec
from zhiyin.data import worlds
from zhiyin.data.splits import LeaveLastOut
from zhiyin.features.schema import Schema
from zhiyin.learning import base
from zhiyin.learning.distributed import ALONE
from zhiyin.learning.fit import Plan, Training, TrainingRun
from zhiyin.learning.negatives import InBatch
from zhiyin.models.base import ModelSpec

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal.default")


class Asked(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations whose answer, or whose shape, the host waits for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(function)
        if any(one in name for one in WAITING):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", spec.examples("zhiyin.models"), ids=repr)
def test_a_step_waits_for_nothing(tmp_path: Path, model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    no: Callable[..., bool] = lambda *tensors: False  # noqa: E731 – what is asked on a CPU alone
    monkeypatch.setattr(base, "_are_small", no)
    products._wider()  # what this processor can do is found out once
    data = worlds.ring(60, 20, 8, 0.1, seed=0)
    split = LeaveLastOut().split(data.events, data.clock)
    plan = Plan(model, InBatch(), training=Training(batch_size=64, device="cpu"))
    run = TrainingRun(plan, data, split, Schema(history_length=6).fit(data, split), tmp_path, ALONE, profile=False)
    drafts = run.drafts()
    for draft in itertools.islice(drafts, 2):
        with Asked() as asked:
            loss = run.take(draft)
        assert asked.names == []
    drafts.close()
    with Asked() as asked:
        float(loss)
    assert asked.names == ["aten._local_scalar_dense.default"]
