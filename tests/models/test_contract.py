"""What every model promises, run on every model found in the package."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.models.base import Items, ModelSpec, Queries, RetrievalModel, Runs
from zhiyin.publish import export_item_tower, export_user_tower
from zhiyin.release import Tower

CATALOGUE = 30
LENGTH = 6
SCHEMA = Schema(
    user=(Categorical("country", dim=3).fit(np.array(["cn", "fr", "cn"], object)), Numeric("age").fit(np.arange(9.0))),
    item=(Bag("tags", dim=4, length=3).fit(np.array([["a", "b"], ["c"]], object)),),
    context=(Categorical("device", dim=2).fit(np.array(["web", "app"], object)),),
    history_length=LENGTH,
)
MODELS = spec.examples("zhiyin.models")


def built(model: ModelSpec, seed: int = 0) -> RetrievalModel:
    torch.manual_seed(seed)
    return model.build(SCHEMA, CATALOGUE).eval()


def queries(count: int, seed: int = 0, length: int = LENGTH) -> Queries:
    """Random requests; the first has no history, the second a full one."""
    random = np.random.default_rng(seed)
    history = random.integers(0, CATALOGUE, (count, length))
    for i in range(count):
        history[i, : length - (i * length // max(1, count - 1) if count > 1 else length)] = UNKNOWN
    columns = {
        "country": torch.from_numpy(random.integers(-1, 2, count)),
        "age": torch.from_numpy(random.standard_normal((count, 1)).astype(np.float32)),
        "device": torch.from_numpy(random.integers(-1, 2, count)),
    }
    return Queries(torch.from_numpy(history), columns)


def runs(model: RetrievalModel, seed: int = 0) -> Runs:
    """Three runs of a log: seven requests, one of them before anything happened, one after more than a history."""
    random = np.random.default_rng(seed)
    widths, places = [LENGTH, 3, 1], [[0, 2, LENGTH], [1, 3, 0], [1, 0, 0]]
    if not model.sequential:
        widths[0], places[0] = LENGTH + 4, [0, 2, LENGTH + 4]
    history = random.integers(0, CATALOGUE, (3, widths[0]))
    history[np.arange(widths[0]) >= np.array(widths)[:, None]] = UNKNOWN
    columns = {name: column[:6] for name, column in queries(7, seed).columns.items()}
    requests = torch.tensor([0, 1, 2, 3, 4, 6])
    return Runs(torch.from_numpy(history), torch.tensor(places), requests, columns, {}, LENGTH)


def items(rows: list[int], seed: int = 0) -> Items:
    random = np.random.default_rng(seed)
    tags = torch.from_numpy(random.integers(-1, 3, (CATALOGUE + 1, 3)))
    return Items(torch.tensor(rows), {"tags": tags[torch.tensor(rows)]})


def part(queries: Queries, places: slice) -> Queries:
    return Queries(queries.history[places], {name: column[places] for name, column in queries.columns.items()})


@pytest.fixture(params=MODELS, ids=repr)
def model(request: pytest.FixtureRequest) -> RetrievalModel:
    return built(request.param)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 7])
def test_shapes_are_the_same_for_one_query_as_for_seven(model: RetrievalModel, count: int) -> None:
    users = model.user_vectors(queries(count))
    vectors = model.item_vectors(items(list(range(count))))
    assert users.ndim == 3
    assert users.shape[0] == count
    assert vectors.shape == (count, users.shape[2])
    assert users.dtype == vectors.dtype == torch.float32
    assert model.label_vectors(users, vectors).shape == vectors.shape


@torch.no_grad()
def test_a_rows_vector_does_not_depend_on_its_neighbours(model: RetrievalModel) -> None:
    crowd = queries(7)
    together = model.user_vectors(crowd)
    alone = torch.cat([model.user_vectors(part(crowd, slice(i, i + 1))) for i in range(7)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    rows = [3, 1, 4, 1, 5]
    crowd_of_items, one = model.item_vectors(items(rows))[2:3], model.item_vectors(items([4]))
    torch.testing.assert_close(crowd_of_items, one, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_never_leaks(model: RetrievalModel) -> None:
    short = queries(7)
    padding = torch.full((7, 4), UNKNOWN)
    longer = Queries(torch.cat([padding, short.history], dim=1), short.columns)
    torch.testing.assert_close(model.user_vectors(short), model.user_vectors(longer), atol=1e-5, rtol=1e-5)


def test_runs_share_work_and_change_nothing(model: RetrievalModel) -> None:
    """What training sees, many requests of a user at once, gives the vectors that serving gives one by one."""
    shared = runs(model)
    together, alone = model.run_vectors(shared), model.user_vectors(shared.queries())
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    directions = torch.randn(together.shape, generator=torch.Generator().manual_seed(0))
    slopes = [gradients(model, (vectors * directions).sum()) for vectors in (together, alone)]
    assert slopes[0].keys() == slopes[1].keys()
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name], atol=1e-4, rtol=1e-4)


def test_parts_are_learned_from_side_by_side(model: RetrievalModel) -> None:
    """Runs of like length come together; all parts of a step go through the tower's layers at once."""
    parts = [runs(model, seed) for seed in range(3)]
    alone = torch.cat([model.run_vectors(one) for one in parts])
    torch.testing.assert_close(model.run_vectors(*parts), alone, atol=1e-5, rtol=1e-5)


def test_training_gives_the_same_bits_with_several_threads(model: RetrievalModel) -> None:
    """A run that is resumed must end as one that was not: no sum may depend on which thread came first."""
    random = np.random.default_rng(0)
    count, wide = 4096, LENGTH
    history = torch.from_numpy(random.integers(0, CATALOGUE, (count, wide)))
    places = torch.arange(1, wide + 1).expand(count, wide).contiguous()
    columns = {
        "country": torch.from_numpy(random.integers(-1, 2, count * wide)),
        "age": torch.from_numpy(random.standard_normal((count * wide, 1)).astype(np.float32)),
        "device": torch.from_numpy(random.integers(-1, 2, count * wide)),
    }
    shared = Runs(history, places, torch.arange(count * wide), columns, {}, LENGTH)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        slopes = []
        for _ in range(4):
            users = model.run_vectors(shared)
            vectors = model.item_vectors(items([3, 1, 4, 1, 5]))
            directions = torch.randn(users.shape, generator=torch.Generator().manual_seed(0))
            slopes.append(gradients(model, (users * directions).sum() + 0 * vectors.sum()))
    finally:
        torch.set_num_threads(threads)
    for again in slopes[1:]:
        for name, slope in slopes[0].items():
            assert torch.equal(slope, again[name]), name


@pytest.mark.parametrize("example", MODELS, ids=repr)
def test_its_size_is_known_before_anything_is_allocated(example: ModelSpec) -> None:
    """Training works out on the meta device what a run needs, and refuses what cannot fit."""
    with torch.device("meta"):
        sketch = example.build(SCHEMA, CATALOGUE)
    real = {name: parameter.shape for name, parameter in built(example).named_parameters()}
    assert {name: parameter.shape for name, parameter in sketch.named_parameters()} == real


@torch.no_grad()
def test_an_empty_history_gives_a_finite_vector_that_the_profile_changes(model: RetrievalModel) -> None:
    empty = torch.full((2, LENGTH), UNKNOWN)
    one = {name: column[:1].expand(2, *column.shape[1:]).clone() for name, column in queries(1).columns.items()}
    one["age"][1] += 1.0
    users = model.user_vectors(Queries(empty, one))
    assert torch.isfinite(users).all()
    assert not torch.allclose(users[0], users[1])


@torch.no_grad()
def test_a_new_item_is_carried_by_its_features(model: RetrievalModel) -> None:
    tags = torch.tensor([[0, -1, -1], [1, 2, -1]])
    vectors = model.item_vectors(Items(torch.tensor([UNKNOWN, UNKNOWN]), {"tags": tags}))
    assert torch.isfinite(vectors).all()
    assert not torch.allclose(vectors[0], vectors[1])


def test_every_parameter_is_trained(model: RetrievalModel) -> None:
    model.train()
    users = model.user_vectors(queries(7))
    vectors = model.item_vectors(items(list(range(7))))
    (users[:, 0] * vectors).sum().backward()  # type: ignore[no-untyped-call]
    untouched = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untouched == []


@torch.no_grad()
def test_history_order_and_content_have_an_effect(model: RetrievalModel) -> None:
    one, other = queries(7, seed=1), queries(7, seed=2)
    changed = Queries(other.history, one.columns)
    assert not torch.allclose(model.user_vectors(one)[1:], model.user_vectors(changed)[1:])


@torch.no_grad()
def test_exported_towers_give_the_same_vectors(model: RetrievalModel, tmp_path: Path) -> None:
    crowd, catalogue = queries(7), items([*range(CATALOGUE), UNKNOWN])
    export_user_tower(model, crowd, tmp_path / "user.onnx")
    export_item_tower(model, catalogue, tmp_path / "item.onnx")
    for asked in (crowd, part(crowd, slice(2, 3))):
        exported = Tower(tmp_path / "user.onnx")(arrays({"history": asked.history, **asked.columns}))
        np.testing.assert_allclose(exported, model.user_vectors(asked).numpy(), atol=1e-4)
    exported = Tower(tmp_path / "item.onnx")(arrays({"rows": catalogue.rows, **catalogue.columns}))
    np.testing.assert_allclose(exported, model.item_vectors(catalogue).numpy(), atol=1e-4)


@torch.no_grad()
def test_the_seed_is_the_only_chance(model: RetrievalModel) -> None:
    for example in MODELS:
        same, again, other = built(example, 1), built(example, 1), built(example, 2)
        crowd = queries(7)
        assert torch.equal(same.user_vectors(crowd), again.user_vectors(crowd))
        assert not torch.equal(same.user_vectors(crowd), other.user_vectors(crowd))


@torch.no_grad()
@pytest.mark.parametrize("example", [m for m in MODELS if hasattr(m, "temperature")], ids=repr)
def test_the_temperature_divides_every_score(example: ModelSpec) -> None:
    from dataclasses import replace

    crowd, few = queries(7), items([1, 2, 3])

    def scores(temperature: float) -> Tensor:
        model = built(replace(example, temperature=temperature))  # type: ignore[type-var]
        return model.user_vectors(crowd)[:, 0] @ model.item_vectors(few).T

    torch.testing.assert_close(scores(0.5), scores(1.0) * 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 0}, ".dim"),
        ({"hidden": (0,)}, ".hidden"),
        ({"temperature": 0.0}, ".temperature"),
        ({"dropout": 1.0}, ".dropout"),
    ],
)
@pytest.mark.parametrize("example", MODELS, ids=repr)
def test_a_wrong_size_is_refused_by_name(example: ModelSpec, change: Mapping[str, object], named: str) -> None:
    from dataclasses import fields, replace

    known = {f.name for f in fields(example)}  # type: ignore[arg-type]
    if set(change) <= known:
        with pytest.raises(SpecError, match=named.replace(".", r"\.")):
            replace(example, **change)  # type: ignore[type-var]


def gradients(model: RetrievalModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: gradient.to_dense() for name, gradient in found.items()}


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
