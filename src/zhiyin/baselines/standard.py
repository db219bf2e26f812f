"""The baselines that stand beside every trained model: a figure alone says little."""

from zhiyin.baselines.als import ALS
from zhiyin.baselines.bpr import BPR
from zhiyin.baselines.ease import EASE
from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.evaluation.ranking import Scorer


def standard(data: Prepared, split: Split, *, everything: bool = False) -> dict[str, Scorer]:
    """By name, those that are fitted in seconds; with `everything`, also EASE, ALS and BPR-MF, which take minutes on a
    large log. Raises `SpecError` where EASE's items² do not fit memory."""
    found: dict[str, Scorer] = {"popularity": Popularity().fit(data, split)}
    if data.clock:
        found["popularity, 7 days"] = Popularity(days=7).fit(data, split)
    found["item-kNN"] = ItemKNN().fit(data, split)
    found["recent kNN"] = ItemKNN(half_life=5).fit(data, split)
    if everything:
        found |= {"EASE": EASE().fit(data, split), "ALS": ALS().fit(data, split), "BPR-MF": BPR().fit(data, split)}
    return found
