"""The sets of the scoreboard: each one's frozen protocol in words, the bars to pass, and what others published on it.

Every published figure is typed here, once, with its source. The protocol's code is the recipe in `examples/recipes`
(its `[split]`) and `zhiyin.evaluation`, which ranks the whole catalogue exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A line of somebody's table: figures by metric, and where they stand."""

    who: str
    figures: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Bar:
    """What a metric must pass, and what is to be left behind. `above`: instead of figures, how much better than the
    best of the baselines, measured here, it must be."""

    metric: str
    bar: float = 0.0
    goal: float = 0.0
    above: float = 0.0


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """`protocol`: what is held out, what is ranked, what decides ties and when training ends. `ks`: the list lengths
    that are recorded. `tuned`: baselines are the bar here, so their settings are chosen on validation, too. `refit`:
    the model learns anew from validation, too, once validation has chosen the number of epochs."""

    name: str
    title: str
    protocol: str
    ks: tuple[int, ...]
    bars: tuple[Bar, ...]
    published: tuple[Published, ...]
    tuned: bool = False
    refit: bool = False

    @property
    def k(self) -> int:
        """The list length of the bars."""
        return int(self.bars[0].metric.split("@")[1])


ESASREC = "Tikhonovich et al. 2025, eSASRec, table in the repository blondered/transformer_benchmark"
KLENITSKIY = "Klenitskiy & Vasilev 2023, Turning Dross Into Gold Loss"
HSTU = "table of the repository meta-recsys/generative-recommenders"
RECTOOLS = "benchmark of the repository MobileTeleSystems/RecTools, ties in stable order"
STABLE = "the same model, ties in stable order"
TABLE_OF = "table of its paper, LightGCN's split"

S3REC = (
    "S3Rec's protocol: 5-core, each user's last event is the test, the one before it validation; a query is a user "
    "just before the event, the history all events before it (for the test: the validation event, too). The whole "
    "catalogue is ranked; items of the history are removed, as in S3Rec's and ICSRec's code, which "
    "sets the scores of a user's known items to zero (no user has an item twice here; the figure with them kept stands "
    "beside it). Events of the same day stay in the file's order. Training stops, and its best step is chosen, by "
    "recall on validation; settings are chosen on validation; the test is measured once for each recorded run."
)


def _amazon(*rows: tuple[str, float, float, str]) -> tuple[Published, ...]:
    return tuple(Published(who, {"recall@10": recall, "ndcg@10": ndcg}, where) for who, recall, ndcg, where in rows)


def _gowalla(*rows: tuple[str, float, float]) -> tuple[Published, ...]:
    return tuple(Published(who, {"recall@20": recall, "ndcg@20": ndcg}, TABLE_OF) for who, recall, ndcg in rows)


SETS: Mapping[str, BenchmarkSet] = {
    one.name: one
    for one in (
        BenchmarkSet(
            "amazon-beauty",
            "Amazon Beauty (2014, 5-core)",
            S3REC,
            (10, 20, 50, 100),
            (Bar("recall@10", 0.0928, 0.0960), Bar("ndcg@10", 0.0531, 0.0579)),
            _amazon(
                ("ICSRec, the best known", 0.0960, 0.0579, "Qin et al. 2024, ICSRec"),
                ("eSASRec", 0.0928, 0.0523, ESASREC),
                ("SASRec + 256 sampled-softmax negatives", 0.0921, 0.0531, ESASREC),
                ("DuoRec", 0.0845, 0.0443, ESASREC),
                ("TIGER", 0.0648, 0.0384, ESASREC),
                ("SASRec, as usually reported", 0.0605, 0.0318, ESASREC),
            ),
        ),
        BenchmarkSet(
            "amazon-sports",
            "Amazon Sports (2014, 5-core)",
            S3REC,
            (10, 20, 50, 100),
            (Bar("recall@10", 0.0569, 0.0600), Bar("ndcg@10", 0.0323, 0.0340)),
            _amazon(
                ("SASRec + 256 sampled-softmax negatives", 0.0569, 0.0314, ESASREC),
                ("eSASRec", 0.0560, 0.0323, ESASREC),
                ("DuoRec", 0.0498, 0.0262, ESASREC),
                ("TIGER", 0.0400, 0.0225, ESASREC),
                ("SASRec, as usually reported", 0.0350, 0.0192, ESASREC),
            ),
        ),
        BenchmarkSet(
            "movielens-1m",
            "MovieLens-1M",
            "Leave-last-out: each user's last rating by time is the test, the one before it validation; a query is a "
            "user just before the event. Ratings of equal time keep the file's order (stable ties: papers differ in "
            "this, and it moves the figures). The whole catalogue of rated films is ranked, films of the history "
            "removed. Settings and the number of epochs are chosen on validation, the model having learned from what "
            "is before it; then it learns anew, for so many epochs, from all that is not the test, as HSTU's "
            "repository does, whose training leaves out each user's last event alone. The test is measured once for "
            "each recorded run. Any model that serves as one or several inner products.",
            (10, 20, 50, 100),
            (Bar("recall@10", 0.3226, 0.3642), Bar("ndcg@10", 0.1880, 0.2164)),
            _amazon(
                ("HSTU-large, stable ties", 0.3642, 0.2164, STABLE),
                ("HSTU-large", 0.3294, 0.1893, HSTU),
                ("HSTU, stable ties", 0.3226, 0.1880, RECTOOLS),
                ("SASRec, 3000 negatives", 0.3159, 0.1857, KLENITSKIY),
                ("SASRec, full softmax", 0.3152, 0.1821, KLENITSKIY),
                ("HSTU", 0.3097, 0.1720, HSTU),
                ("SASRec", 0.2853, 0.1603, HSTU),
            ),
            refit=True,
        ),
        BenchmarkSet(
            "gowalla",
            "Gowalla (LightGCN's split)",
            "LightGCN's split: of each user's places a random fifth or so is the test, all of it targets of one query; "
            "the history is the user's training places. The whole catalogue is ranked, training places removed. There "
            "is no time: the lists are in the order of the places' numbers, so training places are put into a drawn "
            "order (the md5 of user and place), and validation is the last tenth of each user's, a random one "
            "therefore, taken from the training part. Settings and the number of epochs are chosen on validation; then "
            "the model learns anew, for so many epochs, from all training places, as those who published figures did. "
            "The test is measured once for each recorded run. Towers only: no graph is walked at serving.",
            (20, 50, 100),
            (Bar("recall@20", 0.1872, 0.1920), Bar("ndcg@20", 0.1580, 0.1617)),
            _gowalla(
                ("BSPM-EM", 0.1920, 0.1597),
                ("NESCL", 0.1917, 0.1617),
                ("SimpleX", 0.1872, 0.1557),
                ("UltraGCN", 0.1862, 0.1580),
                ("LightGCN", 0.1830, 0.1554),
                ("YouTubeNet", 0.1754, 0.1473),
            ),
            refit=True,
        ),
        BenchmarkSet(
            "online-retail",
            "Online Retail (UCI)",
            "Global time split: the last 30 days are the test, the 14 days before them validation. A query is a "
            "customer at the start of the window, its targets all products first bought in it (products of the "
            "history are removed, and are no targets); customers without a history are queries, too. Settings and the "
            "number of epochs are chosen on validation, the model having learned from what is before it; then it "
            "learns anew, for so many epochs, from all that is before the test, as the baselines do, whose settings "
            "are chosen on validation likewise. The test is measured once for each recorded run. No figures are "
            "published for it: the bar is the best of the baselines.",
            (10, 50, 100),
            (Bar("recall@50", above=0.15),),
            (),
            tuned=True,
            refit=True,
        ),
    )
}
