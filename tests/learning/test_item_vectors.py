"""Item vectors of a whole catalogue: the same however it is cut into blocks."""

import pytest
import torch

from zhiyin.learning import scoring
from zhiyin.learning.examples import Examples
from zhiyin.models.dssm import DSSM


@pytest.mark.parametrize("block", [7, 60, 1000])
def test_vectors_do_not_depend_on_the_blocks(examples: Examples, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DSSM(dim=8, hidden=(16,)).build(examples.schema, examples.catalogue_size)
    with torch.no_grad():
        whole = model.eval().item_vectors(examples.items())
    monkeypatch.setattr(scoring, "BLOCK", block)
    found = scoring.item_vectors(model, examples)
    assert found.shape == (60, 8)
    torch.testing.assert_close(found, whole)
    some = torch.tensor([3, 59, 3])
    torch.testing.assert_close(scoring.item_vectors(model, examples, some), whole[some])
