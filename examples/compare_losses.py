"""Train one recipe with several losses and print their metrics beside each other, on validation.

python compare_losses.py RECIPE
"""

import sys
from pathlib import Path

from zhiyin import Recipe, pipeline

LOSSES = {
    "sampled softmax": {"loss": {"use": "losses:SampledSoftmax"}},
    "corrected logQ": {"loss": {"use": "losses:CorrectedLogQ"}},
    "full softmax": {"loss": {"use": "losses:FullSoftmax"}, "negatives": {"use": "negatives:WholeCatalogue"}},
    "BPR": {"loss": {"use": "losses:BPR"}},
}


def main(path: str) -> None:
    base = Recipe.read(path)
    print(f"{'':16}  recall@10  recall@50    ndcg@10")
    for name, change in LOSSES.items():
        home = base.home.with_name(f"{base.home.name}-{name.replace(' ', '-')}")
        recipe = Recipe.of({**base.tables, **change, "home": str(home)}, Path(path).absolute())
        pipeline.fit(recipe)
        row = next(iter(pipeline.evaluate(recipe, part="validation").rows.values()))
        print(f"{name:16}" + "".join(f"{row[metric]:11.4f}" for metric in ("recall@10", "recall@50", "ndcg@10")))


if __name__ == "__main__":
    main(*sys.argv[1:])
