"""Models with several interests: each extractor against numpy, what is trained, what is served, and that it pays."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.data.worlds import tastes
from zhiyin.errors import SpecError
from zhiyin.evaluation.report import evaluate
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.indexes.exact import Exact
from zhiyin.learning.base import Scores
from zhiyin.learning.examples import Examples
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import Uniform, WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.base import Items, ModelSpec, Queries
from zhiyin.models.comirec_dr import ComiRecDR
from zhiyin.models.comirec_sa import PART, Attended, ComiRecSA
from zhiyin.models.dssm import DSSM
from zhiyin.models.interests import InterestTowers
from zhiyin.models.mind import MIND
from zhiyin.models.sine import SINE, Sparse
from zhiyin.models.windows import Band
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import Promise, publish
from zhiyin.release import Release
from zhiyin.retriever import Request, Retriever
from zhiyin.stores.base import Event
from zhiyin.stores.memory import Memory

LENGTH, DIM, CATALOGUE = 7, 6, 40
COUNTS = (1, 2, 5, LENGTH)
ALL = [MIND(dim=DIM), ComiRecDR(dim=DIM), ComiRecSA(dim=DIM), SINE(dim=DIM)]


def softmax(values: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(values - values.max())
    return np.asarray(shares / shares.sum())


def layer_norm(vector: np.ndarray) -> np.ndarray:
    normed: np.ndarray = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    return normed


def band() -> Band:
    """Four histories of `COUNTS` events."""
    rows = torch.full((len(COUNTS), LENGTH), UNKNOWN)
    for at, count in enumerate(COUNTS):
        rows[at, LENGTH - count :] = 1
    return Band.of_queries(Queries(rows, {}), LENGTH)


def vectors(seed: int = 0) -> Tensor:
    """The histories' events; in the padding stands something large, which must not matter."""
    events = torch.randn(len(COUNTS), LENGTH, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for at, count in enumerate(COUNTS):
        events[at, : LENGTH - count] = 1e3
    return events


@torch.no_grad()
def test_self_attention_pools_as_the_paper_says() -> None:
    torch.manual_seed(0)
    layer = Attended(ComiRecSA(dim=DIM, interests=3), LENGTH).double()
    w1, w2, places = layer.wide.weight.numpy(), layer.narrow.weight.numpy(), layer.places.numpy()
    assert w1.shape == (4 * DIM, DIM)
    events = vectors()
    found = layer(events, band()).vectors.numpy()
    for user, count in enumerate(COUNTS):
        history, place = events[user, LENGTH - count :].numpy(), places[LENGTH - count :]
        scores = np.tanh((history + place) @ w1.T) @ w2.T
        for interest in range(3):
            np.testing.assert_allclose(found[user, interest], softmax(scores[:, interest]) @ history, atol=1e-12)


def test_attention_in_parts_changes_nothing() -> None:
    torch.manual_seed(1)
    layer = Attended(ComiRecSA(dim=DIM, interests=2), LENGTH)
    history = torch.randint(-1, CATALOGUE, (2 * PART + 7, LENGTH)).sort(1).values
    events, asked = torch.randn(2 * PART + 7, LENGTH, DIM), Band.of_queries(Queries(history, {}), LENGTH)
    torch.testing.assert_close(layer.train()(events, asked).vectors, layer.eval()(events, asked).vectors)


@torch.no_grad()
@pytest.mark.parametrize("aggregate", [False, True])
def test_sine_finds_and_weighs_concepts_as_the_paper_says(aggregate: bool) -> None:
    torch.manual_seed(2)
    layer = Sparse(SINE(dim=DIM, interests=3, concepts=8, aggregate=aggregate, tau=0.5), LENGTH).double()
    torch.nn.init.normal_(layer.places)
    torch.nn.init.normal_(layer.belonging.weight)
    numbers = {name: parameter.numpy() for name, parameter in layer.named_parameters()}

    def attention(name: str, rows: np.ndarray, head: int) -> np.ndarray:
        wide = numbers[f"{name}.wide.weight"].reshape(-1, DIM, DIM)[head]
        scores: np.ndarray = np.tanh(rows @ wide.T) @ numbers[f"{name}.narrow"][head]
        return scores

    events = vectors()
    found = layer(events, band()).vectors.numpy()
    for user, count in enumerate(COUNTS):
        history = events[user, LENGTH - count :].numpy()
        pooled = softmax(attention("activating", history, 0)) @ history
        nearness = numbers["concepts"] @ pooled
        chosen = np.argsort(-nearness)[:3]
        concepts = [numbers["concepts"][one] / (1 + np.exp(-nearness[one])) for one in chosen]
        mapped = history @ numbers["belonging.weight"].T
        belongs = np.array([softmax(np.array([layer_norm(m) @ layer_norm(c) for c in concepts])) for m in mapped])
        interests = []
        for k in range(3):
            matters = softmax(attention("mattering", history, k) + numbers["places"][:count][::-1][:, k])
            interests.append(layer_norm(sum(belongs[t, k] * matters[t] * mapped[t] for t in range(count))))
        if aggregate:
            intentions = belongs @ np.array(concepts)
            turn = softmax(attention("turning", intentions, 0)) @ intentions
            near = [i @ turn / np.linalg.norm(i) / np.linalg.norm(turn) for i in interests]
            interests = [softmax(np.array(near) / 0.5) @ np.array(interests)]
        np.testing.assert_allclose(found[user], interests, atol=1e-10)


def test_sine_needs_as_many_concepts_as_interests() -> None:
    with pytest.raises(SpecError, match=r"\.concepts: 3; expected at least interests, 4"):
        SINE(concepts=3)
    with pytest.raises(SpecError, match=r"\.tau: 0\.0; expected a number above 0"):
        SINE(tau=0.0)


def towers(spec: ModelSpec, schema: Schema = Schema(history_length=LENGTH)) -> InterestTowers:
    torch.manual_seed(3)
    model = spec.build(schema, CATALOGUE)
    assert isinstance(model, InterestTowers)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("sharpness", [0.0, 0.7, 3.0])
def test_an_example_trains_the_interests_that_its_label_attends_to(sharpness: float) -> None:
    model = towers(MIND(dim=DIM, sharpness=sharpness))
    users, positives = torch.randn(5, 4, DIM), torch.randn(5, DIM)
    found = model.label_vectors(users, positives)
    for user, positive, trained in zip(users.numpy(), positives.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(trained, softmax(sharpness * (user @ positive)) @ user, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("model", [ComiRecDR(dim=DIM), ComiRecSA(dim=DIM), MIND(dim=DIM, sharpness=math.inf)], ids=repr)
def test_or_the_best_interest_alone(model: ModelSpec) -> None:
    users, positives = torch.randn(5, 4, DIM), torch.randn(5, DIM)
    found = towers(model).label_vectors(users, positives)
    for user, positive, trained in zip(users, positives, found, strict=True):
        assert torch.equal(trained, user[int((user @ positive).argmax())])
        assert float(trained @ positive) == pytest.approx(float((user @ positive).max()))


@torch.no_grad()
def test_an_interest_that_a_user_has_not_got_changes_nothing() -> None:
    """It repeats the first: the best score over interests is that of the real ones, and so is what a label trains."""
    model = towers(MIND(dim=DIM, interests=4, sharpness=0.7))
    history = torch.full((3, LENGTH), UNKNOWN)
    for at, count in enumerate((1, 4, LENGTH)):
        history[at, LENGTH - count :] = torch.arange(count) + 1
    users, positives = model.user_vectors(Queries(history, {})), torch.randn(3, DIM)
    for user, alive in zip(users, (1, 2, 2), strict=True):
        assert all(torch.equal(user[j], user[0]) for j in range(alive, 4))
        assert not any(torch.equal(user[j], user[0]) for j in range(1, alive))
    trained = model.label_vectors(users, positives)
    for at, alive in enumerate((1, 2, 2)):
        wanted = model.label_vectors(users[at : at + 1, :alive], positives[at : at + 1])
        torch.testing.assert_close(trained[at : at + 1], wanted)


@torch.no_grad()
@pytest.mark.parametrize("spec", ALL, ids=repr)
def test_features_of_events_and_items_have_a_say(spec: ModelSpec) -> None:
    schema = Schema(
        item=(Categorical("kind", dim=3).fit(np.array(["a", "b"], object)),),
        event=(Numeric("stars", scale="none"),),
        history_length=LENGTH,
    )
    model = towers(spec, schema)
    history = torch.arange(2 * LENGTH).view(2, LENGTH)
    history[:, :2] = UNKNOWN
    stars = torch.zeros(2, LENGTH, 1)
    plain = model.user_vectors(Queries(history, {"stars": stars}))
    stars[0, -1] = 2.0
    rated = model.user_vectors(Queries(history, {"stars": stars}))
    assert not torch.allclose(plain[0], rated[0])
    torch.testing.assert_close(plain[1], rated[1])
    stars[:, 0] = 5.0
    torch.testing.assert_close(rated, model.user_vectors(Queries(history, {"stars": stars})))
    a, b = (model.item_vectors(Items(torch.tensor([4]), {"kind": torch.tensor([kind])})) for kind in (0, 1))
    assert not torch.allclose(a, b)


@torch.no_grad()
def test_what_interests_have_in_common_is_the_pooled_history() -> None:
    """Each is the sum of two directions, the second weighed; then the MLP, which says nothing here."""
    model = towers(ComiRecSA(dim=DIM, interests=3))
    assert model.common is not None
    for parameter in model.mlp.parameters():
        parameter.zero_()
    model.common.weight.fill_(0.7)
    history = torch.arange(LENGTH)[None].clone()
    history[0, 0] = UNKNOWN
    queries = Queries(history, {})
    events = model.items(history)
    alone = model.extractor(events, Band.of_queries(queries, LENGTH)).vectors[0].numpy()
    whole = model.common.pooling(events, history)[0].numpy()
    for found, interest in zip(model.user_vectors(queries)[0].numpy(), alone, strict=True):
        wanted = interest / np.linalg.norm(interest) + 0.7 * whole / np.linalg.norm(whole)
        np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted) / 0.1, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("spec", ALL, ids=repr)
def test_without_it_there_is_no_pooling(spec: ModelSpec) -> None:
    names = dict(towers(replace(spec, common=False)).named_parameters())  # type: ignore[type-var]
    assert not [name for name in names if name.startswith("common")]


@pytest.mark.parametrize("served", [True, False])
def test_a_negative_meets_the_interest_that_would_serve_it(
    served: bool, data: Prepared, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is given all interests to compare negatives with, or the trained one alone."""
    seen: list[Scores] = []
    trained = SampledSoftmax.__call__

    def watched(loss: SampledSoftmax, scores: Scores) -> Tensor:
        seen.append(scores)
        return trained(loss, scores)

    monkeypatch.setattr(SampledSoftmax, "__call__", watched)
    plan = Plan(
        ComiRecSA(dim=8, interests=3, hidden=(8,), served=served),
        Uniform(16),
        training=Training(epochs=1, batch_size=64, validate_every=1),
    )
    fit(plan, data, split, Schema(history_length=LENGTH).fit(data, split), tmp_path)
    assert seen
    for scores in seen:
        assert (scores.interests is None) == (not served)
        if scores.interests is not None:
            best = (scores.interests * scores.positives[:, None]).sum(-1).amax(1)
            torch.testing.assert_close(scores.positive, best)


@torch.no_grad()
def test_without_recency_a_vote_counts_the_same_everywhere() -> None:
    model = towers(MIND(dim=DIM, interests=1, recency=False))
    history = torch.arange(LENGTH)[None]
    turned = model.user_vectors(Queries(history.flip(1), {}))
    torch.testing.assert_close(model.user_vectors(Queries(history, {})), turned)
    assert "extractor.recency" not in dict(model.named_parameters())


@pytest.fixture(scope="module")
def world() -> tuple[Prepared, Split]:
    """800 users, each with 4 of 40 groups; 8 numbers cannot hold every four of them in one vector."""
    data = tastes(users=800, items=400, groups=40, events_per_user=24, seed=0, skew=0.3, interests=4).data
    return data, LeaveLastOut().split(data.events, data.clock)


def recall(spec: ModelSpec, world: tuple[Prepared, Split], folder: Path) -> float:
    data, split = world
    training = Training(epochs=4, batch_size=256, validate_every=4, patience=0)
    plan = Plan(spec, WholeCatalogue(), optimizer=Optimizer(lr=0.01, table_lr=0.05, decay="none"), training=training)
    fitted = fit(plan, data, split, Schema(history_length=20).fit(data, split), folder)
    return evaluate({"model": fitted.scorer(data)}, data, split.test, ks=(40,)).value("model", "recall@40")


def test_several_interests_pay_where_users_have_several(world: tuple[Prepared, Split], tmp_path: Path) -> None:
    """Same width, same budget, same world: each model of several interests finds more than the best of one vector."""
    single: list[ModelSpec] = [DSSM(dim=8, hidden=(32,)), YouTubeDNN(dim=8, hidden=(32,))]
    several: list[ModelSpec] = [
        MIND(dim=8, hidden=(32,)),
        ComiRecDR(dim=8, hidden=(32,)),
        ComiRecSA(dim=8, hidden=(32,)),
        SINE(dim=8, hidden=(32,)),
    ]
    found = {type(spec).__name__: recall(spec, world, tmp_path / type(spec).__name__) for spec in (*single, *several)}
    best = max(found[type(spec).__name__] for spec in single)
    assert min(found[type(spec).__name__] for spec in several) > best + 0.2, found


@pytest.fixture(scope="module")
def mind(data: Prepared, split: Split, examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release of an untrained MIND with three interests."""
    torch.manual_seed(0)
    return publish(
        MIND(dim=16, interests=3, hidden=(32,)).build(examples.schema, len(data.items)),
        examples.schema,
        data,
        sample=examples.queries(split.test.starts),
        popular=np.arange(len(data.items), dtype=np.int32),
        index=Exact(),
        root=tmp_path_factory.mktemp("releases"),
        id="20260101-000000-mind",
        facts={"created": "2026-01-01T00:00:00+00:00", "metrics": {}},
        promise=Promise(overlap=0.5, k=10),
    )


def test_a_candidate_says_which_interest_found_it(
    mind: Release, data: Prepared, split: Split, examples: Examples
) -> None:
    """All interests of all users in one answer each: every item once, by its best interest, that of offline."""
    log, retriever = data.events, Retriever(Memory().open())
    for start in split.test.starts:
        row = int(log.users[start])
        past = range(int(log.offsets[row]), int(start))
        records = log.columns.records(past.start, past.stop)
        retriever.store.append(
            [Event(f"u{row}", f"i{log.items[at]}", int(log.times[at]), records[at - past.start]) for at in past]
        )
        retriever.store.put_profiles({f"u{row}": data.user_table.records(row, row + 1)[0]})
    queries = examples.queries(split.test.starts)
    inputs = {"history": queries.history.numpy(), **{name: column.numpy() for name, column in queries.columns.items()}}
    scores = mind.user_tower(inputs) @ np.asarray(mind.vectors).T
    assert scores.shape == (len(split.test.starts), 3, len(data.items))
    requests = [Request(user=f"u{log.users[s]}", k=25, time=int(log.times[s])) for s in split.test.starts]
    found = set()
    for at, (start, answer) in enumerate(zip(split.test.starts, retriever.retrieve(mind, requests), strict=True)):
        best = scores[at].max(0)
        best[log.history(int(start))] = -np.inf
        order = np.argsort(-best, kind="stable")[:25]
        assert len(set(answer.items)) == 25
        np.testing.assert_allclose(answer.scores, best[order], atol=1e-4)
        for item, interest in zip(answer.items, answer.interests, strict=True):
            row = int(item[1:])
            assert scores[at, interest, row] == pytest.approx(float(scores[at, :, row].max()), abs=1e-5)
        found |= set(answer.interests)
    assert found == {0, 1, 2}


def test_a_short_history_is_answered_by_its_first_interest(mind: Release) -> None:
    """One event is one interest; the other two repeat it, and no candidate comes twice or from them."""
    retriever = Retriever(Memory().open())
    answer = retriever.retrieve(mind, [Request(events=(Event("", "i7", 1_700_000_000_000),), k=30)])[0]
    assert answer.channel == "deep"
    assert set(answer.interests) == {0}
    assert len(set(answer.items)) == 30
