"""Users who are scored together, whatever the lengths of their histories, get what each would get alone."""

import numpy as np
import pytest
import torch

from zhiyin import spec
from zhiyin.data import worlds
from zhiyin.features.schema import Schema
from zhiyin.learning.examples import Examples
from zhiyin.learning.scoring import TowerScorer
from zhiyin.models.base import ModelSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize("model", spec.examples("zhiyin.models"), ids=repr)
def test_each_user_stands_where_it_was_asked_with_its_own_vector(model: ModelSpec) -> None:
    data = worlds.ring(20, 60, 41, 0.1, seed=1)
    schema = Schema(history_length=40)
    examples = Examples(data, schema, end=int(data.events.times.max()), device=CPU)
    tower = model.build(schema, len(data.items)).eval()
    events = np.random.default_rng(0).permutation(len(data.events))[:200]
    assert len(np.unique(np.log2(np.maximum(examples.lengths(events), 1)).astype(int))) > 3
    with torch.no_grad():
        alone = tower.user_vectors(examples.queries(events))
    torch.testing.assert_close(TowerScorer(tower, examples).users(events), alone, atol=1e-5, rtol=1e-5)
