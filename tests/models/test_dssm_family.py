"""DSSM's variants: what each adds to the two towers, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from zhiyin import spec
from zhiyin.data.splits import LeaveLastOut
from zhiyin.data.worlds import tastes
from zhiyin.errors import SpecError
from zhiyin.evaluation.report import evaluate
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.losses import Hinge
from zhiyin.learning.negatives import Uniform
from zhiyin.models.base import Items, Queries, RetrievalModel
from zhiyin.models.dssm import DSSM
from zhiyin.models.facebook_dssm import FacebookDSSM
from zhiyin.models.senet_dssm import FeatureGate, SENetDSSM

CATALOGUE, LENGTH = 20, 5
SCHEMA = Schema(
    user=(Categorical("country", dim=3).fit(np.array(["cn", "fr"], object)),),
    item=(Categorical("kind", dim=2).fit(np.array(["a", "b"], object)),),
    context=(Numeric("hour", scale="none"),),
    history_length=LENGTH,
)
QUERIES = Queries(
    torch.arange(15).view(3, LENGTH),
    {"country": torch.tensor([0, 1, -1]), "hour": torch.tensor([[0.5], [-1.0], [2.0]])},
)
ITEMS = Items(torch.arange(6), {"kind": torch.tensor([0, 1, 0, 1, -1, 0])})


def built(model: object) -> RetrievalModel:
    torch.manual_seed(0)
    towers: RetrievalModel = model.build(SCHEMA, CATALOGUE)  # type: ignore[attr-defined]
    return towers.eval()


@torch.no_grad()
def test_the_gate_squeezes_excites_and_weighs() -> None:
    torch.manual_seed(1)
    widths = (4, 3, 1, 2, 5)
    gate = FeatureGate(widths, reduction=2)
    w1, w2 = gate.squeezed.weight.numpy(), gate.excited.weight.numpy()
    assert (w1.shape, w2.shape) == ((2, 5), (5, 2))
    vectors = torch.randn(6, sum(widths))
    found = gate(vectors).numpy()
    for row, gated in zip(vectors.numpy(), found, strict=True):
        parts = np.split(row, np.cumsum(widths)[:-1])
        squeezed = np.array([part.mean() for part in parts])
        weights = 2 / (1 + np.exp(-(w2 @ np.maximum(w1 @ squeezed, 0))))
        wanted = np.concatenate([weight * part for weight, part in zip(weights, parts, strict=True)])
        np.testing.assert_allclose(gated, wanted, atol=1e-6)


def test_a_gate_of_few_features_keeps_one_unit() -> None:
    assert FeatureGate((8,), reduction=4).squeezed.out_features == 1
    assert FeatureGate((8,) * 9, reduction=4).squeezed.out_features == 2
    with pytest.raises(SpecError, match=r"\.reduction: 0; expected at least 1"):
        SENetDSSM(reduction=0)


@torch.no_grad()
def test_both_of_senets_towers_are_gated_and_are_dssms_otherwise() -> None:
    gated, plain = built(SENetDSSM(dim=8, hidden=(16,))), built(DSSM(dim=8, hidden=(16,)))
    missing, left = gated.load_state_dict(plain.state_dict(), strict=False)
    assert left == []
    assert missing == [f"{side}_gate.{part}.weight" for side in ("user", "item") for part in ("squeezed", "excited")]
    assert not torch.allclose(gated.user_vectors(QUERIES), plain.user_vectors(QUERIES))
    assert not torch.allclose(gated.item_vectors(ITEMS), plain.item_vectors(ITEMS))
    for name in missing:
        torch.nn.init.zeros_(gated.get_parameter(name))
    torch.testing.assert_close(gated.user_vectors(QUERIES), plain.user_vectors(QUERIES))
    torch.testing.assert_close(gated.item_vectors(ITEMS), plain.item_vectors(ITEMS))


@torch.no_grad()
def test_facebooks_score_is_the_cosine() -> None:
    model = built(FacebookDSSM(dim=8, hidden=(16,)))
    users, items = model.user_vectors(QUERIES)[:, 0], model.item_vectors(ITEMS)
    torch.testing.assert_close(users.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(items.norm(dim=-1), torch.ones(6))
    same = built(DSSM(dim=8, hidden=(16,), temperature=1.0))
    assert torch.equal(users, same.user_vectors(QUERIES)[:, 0])
    with pytest.raises(SpecError, match="unknown key 'temperature'"):
        spec.build(FacebookDSSM, {"temperature": 0.1})


def test_facebooks_recipe_learns_what_users_like(tmp_path: Path) -> None:
    """The triplet hinge on cosines, in a world where a user likes one group of ten: chance finds a tenth."""
    data = tastes(users=300, items=200, groups=10, events_per_user=12, seed=0, skew=0.0).data
    split = LeaveLastOut().split(data.events, data.clock)
    plan = Plan(
        FacebookDSSM(dim=16, hidden=(32,)),
        negatives=Uniform(64),
        loss=Hinge(margin=0.2),
        training=Training(epochs=12, batch_size=256, patience=0, validate_every=12),
    )
    fitted = fit(plan, data, split, Schema(history_length=10).fit(data, split), tmp_path)
    report = evaluate({"model": fitted.scorer(data)}, data, split.test, ks=(20,))
    assert report.value("model", "recall@20") > 0.5
