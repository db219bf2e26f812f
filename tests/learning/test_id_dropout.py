"""Id dropout: features alone carry a new item, ids are learned as before, and off it changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from zhiyin import pipeline
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut, Split
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Vocabulary
from zhiyin.errors import SpecError
from zhiyin.features.categorical import Categorical
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Fitted, Plan, Progress, Training, fit
from zhiyin.learning.negatives import Mixed
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.base import Items
from zhiyin.models.dssm import DSSM
from zhiyin.models.youtube_dnn import YouTubeDNN, YouTubeDNNTowers
from zhiyin.recipe import Recipe

GROUPS, ITEMS, NEW, USERS = 4, 40, 8, 200
SCHEMA = Schema(item=(Categorical("group"),), history_length=8)
MODEL = YouTubeDNN(dim=16, hidden=(32,))


@pytest.fixture(scope="module")
def world() -> tuple[Prepared, Split]:
    """A user takes items of one of four groups; nobody has taken the last two items of any group yet."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS, dtype=np.int32), 8)
    items = (random.integers((ITEMS - NEW) // GROUPS, size=len(users)) * GROUPS + users % GROUPS).astype(np.int32)
    data = Prepared(
        Vocabulary.of(f"u{row}" for row in range(USERS)),
        Vocabulary.of(f"i{row}" for row in range(ITEMS)),
        EventLog.of(users, items, np.arange(len(users)), user_count=USERS),
        Table.of({}, USERS),
        Table.of({"group": [f"g{row % GROUPS}" for row in range(ITEMS)]}),
    )
    return data, LeaveLastOut().split(data.events, data.clock)


def trained(
    world: tuple[Prepared, Split],
    folder: Path,
    share: float,
    model: Any = MODEL,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Fitted:
    data, split = world
    training = Training(epochs=8, batch_size=256, measure=5, id_dropout=share, device="cpu")
    plan = Plan(model, Mixed(32), optimizer=Optimizer(lr=0.01, table_lr=0.02), training=training)
    return fit(plan, data, split, SCHEMA.fit(data, split), folder, watch)


def unknown_row(fitted: Fitted) -> Tensor:
    assert isinstance(fitted.model, YouTubeDNNTowers)
    return fitted.model.items.table.weight[-1]


@pytest.mark.parametrize("model", [MODEL, DSSM(dim=16, hidden=(32,))], ids=lambda one: type(one).__name__)
def test_features_alone_carry_a_new_item(world: tuple[Prepared, Split], tmp_path: Path, model: Any) -> None:
    """A user's group has eight items that were taken and two that nobody has: those are among the best ten, with id
    dropout and without, if the tower knows that it does not know them. A row that only negatives have moved is in the
    way."""
    data, split = world
    asked = split.test.starts
    own = torch.from_numpy(data.events.users[asked] % GROUPS)[:, None]

    def found(fitted: Fitted) -> float:
        best = fitted.scorer(data, "cpu").scores(asked).topk(ITEMS // GROUPS, dim=1).indices
        return float(((best >= ITEMS - NEW) & (best % GROUPS == own)).sum(1).float().mean()) / 2

    without, half = (trained(world, tmp_path / f"{share}", share, model) for share in (0.0, 0.5))
    kept = found(replace(without, nameless=torch.empty(0, dtype=torch.int64)))
    assert found(half) > 0.99
    assert found(without) > 0.99
    assert kept < 0.95


def test_items_without_features_keep_their_ids(world: tuple[Prepared, Split], tmp_path: Path) -> None:
    """Nothing else would be known of them; so to drop ids is refused."""
    data, split = world
    training = Training(epochs=1, batch_size=256, device="cpu")
    plan = Plan(MODEL, Mixed(32), training=training)
    assert not len(fit(plan, data, split, Schema(history_length=8), tmp_path / "kept").nameless)
    dropping = replace(plan, training=replace(training, id_dropout=0.5))
    with pytest.raises(SpecError, match=r"training\.id_dropout: 0\.5, and items have no features.*features\.item"):
        fit(dropping, data, split, Schema(history_length=8), tmp_path / "refused")


def test_a_run_that_drops_ids_resumes_to_the_bit(world: tuple[Prepared, Split], tmp_path: Path) -> None:
    trained(world, tmp_path / "whole", 0.3)

    def stop(progress: Progress) -> None:
        if progress.epoch >= 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(world, tmp_path / "cut", 0.3, watch=stop)
    trained(world, tmp_path / "cut", 0.3)
    for name in ("best", "last"):
        whole, cut = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_the_row_of_unknown_ids_is_learned_and_known_ids_still_are(
    world: tuple[Prepared, Split], tmp_path: Path
) -> None:
    without, half = (trained(world, tmp_path / f"{share}", share) for share in (0.0, 0.5))
    assert not unknown_row(without).any()
    assert unknown_row(half).norm() > 0.1
    assert half.nameless.tolist() == list(range(ITEMS - NEW, ITEMS))
    vectors = half.scorer(world[0], "cpu").items
    assert (vectors[0] - vectors[GROUPS]).norm() > 0.01, "two items of a group are told apart by their ids"
    assert torch.equal(vectors[-1], vectors[-1 - GROUPS]), "two new ones of a group are not"


def test_when_it_is_certain_a_vector_says_what_the_features_say(world: tuple[Prepared, Split], tmp_path: Path) -> None:
    vectors = trained(world, tmp_path, 1.0).scorer(world[0], "cpu").items
    assert torch.equal(vectors, vectors[:GROUPS].repeat(ITEMS // GROUPS, 1))
    assert not torch.equal(vectors[0], vectors[1])


def test_off_it_draws_nothing(world: tuple[Prepared, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object, **__: object) -> Tensor:
        raise AssertionError("a step drew something")

    fitted = trained(world, tmp_path / "off", 0.0)
    monkeypatch.setattr(torch, "rand", drawn)
    again = trained(world, tmp_path / "again", 0.0)
    for one, other in zip(fitted.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(AssertionError, match="drew"):
        trained(world, tmp_path / "on", 0.5)


def test_an_item_of_a_step_is_shown_once_with_its_id_or_without(
    world: tuple[Prepared, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its positive and its negatives agree; and the same steps hide the same items."""
    shown: list[Tensor] = []
    plain = YouTubeDNNTowers.item_vectors

    def watched(self: YouTubeDNNTowers, items: Items) -> Tensor:
        if self.training:
            shown.append(items.rows)
        return plain(self, items)

    monkeypatch.setattr(YouTubeDNNTowers, "item_vectors", watched)
    trained(world, tmp_path / "one", 0.3)
    first, shown = shown, []
    trained(world, tmp_path / "two", 0.3)
    assert len(first) == len(shown) > 20
    assert all(torch.equal(one, other) for one, other in zip(first, shown, strict=True))
    hidden = torch.cat([rows == UNKNOWN for rows in first])
    assert abs(float(hidden.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / len(hidden)) ** 0.5
    assert all(len(set(rows[rows >= 0].tolist())) == int((rows >= 0).sum()) for rows in first)


def test_a_share_that_is_none_is_refused() -> None:
    for share in (-0.1, 1.5):
        with pytest.raises(SpecError, match=r"\.id_dropout: -?[\d.]+; expected a share, 0 to 1"):
            Training(id_dropout=share)


def test_a_release_has_new_items_as_the_exported_tower_makes_them(tmp_path: Path) -> None:
    """What the service does with an item that comes later, publish has done with one that had no events."""
    random = np.random.default_rng(0)
    rows = [f"u{user},i{item},{at}" for user in range(30) for at, item in enumerate(random.permutation(20)[:6])]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    titles = [f"i{item},g{item % 3}" for item in range(20)] + ["new,g1"]
    (tmp_path / "items.csv").write_text("\n".join(["item,group", *titles]) + "\n")
    (tmp_path / "r.toml").write_text(
        '[data]\nevents = "log.csv"\nitems = "items.csv"\ntime_unit = "position"\n'
        '[features]\nitem = [{ use = "categorical:Categorical", name = "group" }]\n'
        '[model]\nuse = "dssm:DSSM"\ndim = 8\nhidden = [16]\n[training]\nepochs = 2\nid_dropout = 0.5\n'
        '[index]\nuse = "exact:Exact"\n'
    )
    recipe = Recipe.read(tmp_path / "r.toml")
    pipeline.fit(recipe)
    release = pipeline.publish(recipe)
    (feature,) = release.schema.item
    group = feature.encode(np.array(["g1"], object)).astype(np.int64)
    unknown, known = (release.item_tower({"rows": np.array([row]), "group": group})[0] for row in (UNKNOWN, 1))
    new = release.vectors[release.items.rows(["new"])[0]]
    np.testing.assert_allclose(unknown, new, atol=1e-5)
    assert np.abs(known - new).max() > 1e-3
