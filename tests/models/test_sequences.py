"""What models that read event by event share: causality, the shift, event features, dropout, additive attention."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.models import attention
from zhiyin.models.attention import additive, additive_last
from zhiyin.models.base import ModelSpec, Queries, RetrievalModel, Runs
from zhiyin.models.esasrec import ESASRec
from zhiyin.models.gru4rec import GRU4Rec
from zhiyin.models.hstu import HSTU
from zhiyin.models.narm import NARM
from zhiyin.models.sasrec import SASRec
from zhiyin.models.sequences import Dropout, SequenceTowers, shifted
from zhiyin.publish import export_user_tower
from zhiyin.release import Tower

CATALOGUE, LENGTH = 20, 6
SCHEMA = Schema(event=(Numeric("stars").fit(np.arange(5.0)),), history_length=LENGTH)
NOBODY: dict[str, Tensor] = {}


def is_sequential(example: ModelSpec) -> bool:
    torch.manual_seed(0)
    return isinstance(example.build(SCHEMA, CATALOGUE), SequenceTowers)


MODELS = [example for example in spec.examples("zhiyin.models") if is_sequential(example)]


@pytest.fixture(params=MODELS, ids=repr)
def model(request: pytest.FixtureRequest) -> RetrievalModel:
    torch.manual_seed(0)
    built: RetrievalModel = request.param.build(SCHEMA, CATALOGUE).eval()
    return built


def whole_run(history: Tensor, stars: Tensor) -> Runs:
    """One run and a request after each of 0 … P events of it."""
    count = history.shape[1] + 1
    return Runs(history, torch.arange(count)[None], torch.arange(count), NOBODY, {"stars": stars}, LENGTH)


def test_every_sequence_model_is_here() -> None:
    assert {type(example).__name__ for example in MODELS} >= {"GRU4Rec", "NARM", "STAMP", "SASRec", "ESASRec", "HSTU"}


@torch.no_grad()
@pytest.mark.parametrize("changed", ["item", "event feature"])
def test_a_later_event_never_changes_an_earlier_vector(model: RetrievalModel, changed: str) -> None:
    history, stars = torch.tensor([[3, 1, 4, 1, 5, 9]]), torch.randn(1, LENGTH, 1)
    before = model.run_vectors(whole_run(history, stars))
    history, stars = history.clone(), stars.clone()
    if changed == "item":
        history[0, 3] = 7
    else:
        stars[0, 3] += 1
    after = model.run_vectors(whole_run(history, stars))
    assert torch.equal(before[:4], after[:4])
    different = (before[4:] - after[4:]).abs().amax((1, 2))
    assert (different > 1e-6).all(), "every later request has seen the event"


def test_event_features_are_served_as_they_are_trained(model: RetrievalModel) -> None:
    """Also to a window with more padding than a history is long."""
    runs = whole_run(torch.tensor([[3, 1, 4, 1, 5, 9]]), torch.randn(1, LENGTH, 1))
    queries = runs.queries()
    torch.testing.assert_close(model.run_vectors(runs), model.user_vectors(queries), atol=1e-4, rtol=1e-4)
    longer = Queries(
        torch.cat([torch.full((7, 3), UNKNOWN), queries.history], 1),
        {"stars": torch.cat([torch.zeros(7, 3, 1), queries.columns["stars"]], 1)},
    )
    torch.testing.assert_close(model.user_vectors(queries), model.user_vectors(longer), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_fills_the_right_of_a_run_is_of_no_meaning(model: RetrievalModel) -> None:
    """Runs of unlike length stand side by side in training."""
    short = whole_run(torch.tensor([[3, 1]]), torch.ones(1, 2, 1))
    filled = replace(
        short, history=torch.tensor([[3, 1, UNKNOWN, UNKNOWN]]), past={"stars": torch.ones(1, 2, 1).repeat(1, 2, 1)}
    )
    torch.testing.assert_close(model.run_vectors(short), model.run_vectors(filled), atol=1e-4, rtol=1e-4)


def test_shifted_puts_the_oldest_real_event_first() -> None:
    history = torch.tensor([[UNKNOWN, UNKNOWN, 7, 8], [1, 2, 3, 4], [UNKNOWN] * 4])
    counts = torch.tensor([2, 4, 0])
    moved = shifted(history, counts, 4)
    assert moved[0, :2].tolist() == [7, 8]
    assert moved[1].tolist() == [1, 2, 3, 4]
    assert shifted(history, counts, 3)[1].tolist() == [2, 3, 4], "of more events than `length`, the last ones"
    assert shifted(torch.stack([history, -history], 2), counts, 4)[0, :2].tolist() == [[7, -7], [8, -8]]


def test_dropout_leaves_out_the_share_it_says_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout, values = Dropout(0.25), torch.ones(1000, 130)
    dropped = dropout(values)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)
    rows_lost, columns_lost = (dropped == 0).float().mean(1), (dropped == 0).float().mean(0)
    assert rows_lost.std().item() == pytest.approx((0.25 * 0.75 / 130) ** 0.5, rel=0.1), "each entry for itself"
    assert columns_lost.std().item() == pytest.approx((0.25 * 0.75 / 1000) ** 0.5, rel=0.3)


def test_dropout_is_a_function_of_the_seed_and_off_when_serving() -> None:
    dropout, values = Dropout(0.5), torch.arange(24.0).reshape(2, 3, 4)
    torch.manual_seed(1)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(1)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(first, second)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(dropout.eval()(values), values)


@pytest.mark.parametrize("chunk", [1, 1 << 20], ids=["one query at a time", "all at once"])
def test_additive_attention_and_its_slopes(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hand-written backward pass against finite differences; the values against loops."""
    monkeypatch.setattr(attention, "CHUNK", chunk)
    torch.manual_seed(0)
    queries, keys = (torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    vector = torch.randn(3, dtype=torch.double, requires_grad=True)
    weights = additive(queries, keys, vector)
    for run, t, j in np.ndindex(2, 4, 4):
        expected = vector @ torch.sigmoid(queries[run, t] + keys[run, j]) if j <= t else torch.zeros(())
        assert weights[run, t, j].item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.autograd.gradcheck(additive, (queries, keys, vector))
    counts = torch.tensor([3, 1])
    last = additive_last(queries[torch.arange(2), counts - 1], keys, vector, counts)
    torch.testing.assert_close(last, weights[torch.arange(2), counts - 1])


@torch.no_grad()
def test_a_tower_that_reads_a_history_alone_is_exported(tmp_path: Path) -> None:
    """No profile, no context, no event features: as in a log of users, items and times."""
    torch.manual_seed(0)
    model = SASRec(dim=8, blocks=1).build(Schema(history_length=LENGTH), CATALOGUE).eval()
    queries = Queries(torch.tensor([[UNKNOWN] * 6, [UNKNOWN, UNKNOWN, 3, 1, 4, 1], [1, 5, 9, 2, 6, 5]]), {})
    export_user_tower(model, queries, tmp_path / "user.onnx")
    exported = Tower(tmp_path / "user.onnx")({"history": queries.history.numpy()})
    np.testing.assert_allclose(exported, model.user_vectors(queries).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SASRec(dim=16, heads=3), r"\.heads: 3.*a divisor of dim = 16"),
        (lambda: ESASRec(heads=0), r"\.heads: 0.*a divisor of dim = 64"),
        (lambda: HSTU(blocks=0), r"\.blocks: 0.*at least 1"),
        (lambda: ESASRec(expansion=0), r"\.expansion: 0.*at least 1"),
        (lambda: GRU4Rec(hidden=()), r"\.hidden: \[\].*at least one layer"),
        (lambda: NARM(units=0), r"\.units: 0.*at least 1"),
    ],
)
def test_a_wrong_shape_is_refused_with_what_is_right(make: type[ModelSpec], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()
