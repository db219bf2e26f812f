"""SENet-DSSM: DSSM whose towers weigh their features before their MLPs, by the squeeze-and-excitation of Hu et al. 2018
("Squeeze-and-Excitation Networks") over feature embeddings, as FiBiNET (Huang et al. 2019, section 3.2) does.

Squeeze: each feature's vector to its mean. Excite: a = 2σ(W2 ReLU(W1 z)), W1 to a `reduction`-th of the features.
Weigh: each vector times its own a. FiBiNET's outer ReLU can shut a feature for ever; Hu's σ cannot, and twice of it
starts near 1: as plain DSSM.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhiyin.errors import SpecError
from zhiyin.features.base import Codes, Feature
from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.dssm import DSSM, DSSMTowers
from zhiyin.models.layers import Pooling
from zhiyin.models.youtube_dnn import check_towers, check_weight
from zhiyin.products import Linear


@dataclass(frozen=True, slots=True)
class SENetDSSM:
    """As `DSSM`; the gate's inner layer has a `reduction`-th of the features, and at least one unit."""

    dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    reduction: int = 2
    pooling: Pooling = "positions"
    weight: str = ""
    share_items: bool = False
    temperature: float = 0.1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, self.temperature, self.dropout)
        if self.reduction < 1:
            raise SpecError(f"{self.reduction}", where=".reduction", expected="at least 1")

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """Raises `SpecError` when `weight` names no one-number event feature."""
        check_weight(self.weight, schema)
        towers = DSSM(
            self.dim, self.hidden, self.pooling, self.weight, self.share_items, self.temperature, self.dropout
        )
        user_widths = (self.dim, *_widths((*schema.user, *schema.context)))
        item_widths = (self.dim, *_widths(schema.item))
        gates = [FeatureGate(widths, self.reduction) for widths in (user_widths, item_widths)]
        return DSSMTowers(towers, schema, catalogue_size, *gates)


class FeatureGate(nn.Module):
    """Weighs features of these widths that stand side by side."""

    owners: Tensor

    def __init__(self, widths: Sequence[int], reduction: int) -> None:
        super().__init__()
        count = len(widths)
        self.squeezed = Linear(count, max(1, count // reduction), bias=False)
        self.excited = Linear(self.squeezed.out_features, count, bias=False)
        self.register_buffer(
            "owners",
            torch.eye(count).repeat_interleave(torch.tensor(widths), dim=0, output_size=sum(widths)),
            persistent=False,
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, Σ widths] from as many."""
        means = vectors @ (self.owners / self.owners.sum(0))
        weights: Tensor = 2 * torch.sigmoid(self.excited(torch.relu(self.squeezed(means))))
        return vectors * (weights @ self.owners.T)


def _widths(features: Sequence[Feature]) -> list[int]:
    encodings = [feature.encoding for feature in features]
    return [encoding.dim if isinstance(encoding, Codes) else encoding.width for encoding in encodings]


EXAMPLES = (SENetDSSM(dim=16, hidden=(32,)),)
