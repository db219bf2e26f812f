"""The unified embedding model of Huang et al. 2020, "Embedding-based Retrieval in Facebook Search", section 2.

Two towers over all that is known of either side, and their cosine as it is: the paper trains it by a triplet hinge
whose margin is a difference of cosines, so no temperature divides it. Its recipe, with
hard negatives beside random ones (section 6):

    [model]
    use = "facebook_dssm:FacebookDSSM"
    [loss]
    use = "losses:Hinge"
    margin = 0.2
    [negatives]
    use = "hard:Mined"
"""

from dataclasses import dataclass

from zhiyin.features.schema import Schema
from zhiyin.models.base import RetrievalModel
from zhiyin.models.dssm import DSSM, DSSMTowers
from zhiyin.models.layers import Pooling
from zhiyin.models.youtube_dnn import check_towers, check_weight


@dataclass(frozen=True, slots=True)
class FacebookDSSM:
    """As `DSSM`, its score the cosine."""

    dim: int = 64
    hidden: tuple[int, ...] = (256, 128)
    pooling: Pooling = "positions"
    weight: str = ""
    share_items: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_towers(self.dim, self.hidden, 1.0, self.dropout)

    def build(self, schema: Schema, catalogue_size: int) -> RetrievalModel:
        """Raises `SpecError` when `weight` names no one-number event feature."""
        check_weight(self.weight, schema)
        towers = DSSM(self.dim, self.hidden, self.pooling, self.weight, self.share_items, 1.0, self.dropout)
        return DSSMTowers(towers, schema, catalogue_size)


EXAMPLES = (FacebookDSSM(dim=16, hidden=(32,)),)
