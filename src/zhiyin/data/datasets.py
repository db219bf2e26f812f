"""Named public data sets: where they come from, what they hold, under which licence, and how they are read.

The data belong to their publishers: each is fetched from its own publisher, or read from a folder or archive that you
have, and never shipped with zhiyin.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zhiyin.data import originals
from zhiyin.data.download import Download, Http, Progress, Wheel
from zhiyin.data.sources import Source
from zhiyin.data.tidy import Form, tidy
from zhiyin.errors import DataError
from zhiyin.spec import nearest


@dataclass(frozen=True, slots=True)
class DataSet:
    """`about`: what it has; `page`: the publisher's; `licence` in words; `downloads`: the files that `fetch` gets;
    `forms`: the ways it is shipped, the preferred one first."""

    about: str
    page: str
    licence: str
    citation: str
    downloads: tuple[Download, ...]
    forms: tuple[Form, ...]

    @property
    def verified(self) -> bool:
        """Whether every file is checked against a published checksum."""
        return all(one.checksum for one in self.downloads)


def load(name: str, *, data: Path | None, cache: Path, out: Path, progress: Progress | None = None) -> Source:
    """Write a named data set as tidy Parquet into `out`, and say how to read it.

    `data`: a folder or an archive that holds it, as its publisher ships it or tidy (a folder of such folders, named
    after their data sets, will do); None to fetch it into `cache`, once. `progress` is told bytes done and in all.
    Raises `DataError` for an unknown name, for what `fetch` refuses, and for data that are not that data set's.
    """
    found = named(name)
    if data is None:
        data = fetch(name, cache, progress)
    elif (data / name).is_dir():
        data = data / name
    return tidy(data, found.forms, [one.file for one in found.downloads], out)


def fetch(name: str, cache: Path, progress: Progress | None = None) -> Path:
    """The folder in `cache` with a named data set's files, fetched and verified where they are not there yet.

    Raises `DataError` when there is no connection, no such file any more, or the wrong one.
    """
    folder = cache / name.replace(":", "-")
    for download in named(name).downloads:
        download.fetch(folder, progress or (lambda done, total: None))
    return folder


def named(name: str) -> DataSet:
    """The data set of a name. Raises `DataError` naming the nearest one when there is none."""
    parts = re.fullmatch(r"amazon-(\d{4}):(\w+)", name)
    if parts and parts[1] in _AMAZON:
        categories = _AMAZON[parts[1]]
        if parts[2] not in categories:
            raise DataError(
                f"there is no category '{parts[2]}'{nearest(parts[2], categories)}",
                where=name,
                expected=f"one of {', '.join(categories)}",
            )
        return _amazon(parts[1], parts[2])
    if name not in DATASETS:
        raise DataError(
            f"there is no data set '{name}'{nearest(name, DATASETS)}", expected=f"one of {', '.join(DATASETS)}"
        )
    return DATASETS[name]


def default_cache() -> Path:
    """Where fetched files are kept unless told otherwise: `zhiyin` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "zhiyin"


_GROUPLENS = "F. M. Harper, J. A. Konstan. The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015."
_RESEARCH = "research use; no redistribution, no commercial use without permission"


def _movielens(version: str, about: str, checksum: str, form: Form, licence: str = _RESEARCH) -> DataSet:
    page = f"https://grouplens.org/datasets/movielens/{version.removesuffix('-small')}/"
    download = Http(f"https://files.grouplens.org/datasets/movielens/ml-{version}.zip", checksum)
    return DataSet(about, page, licence, _GROUPLENS, (download,), (form,))


_CSV_ABOUT = "ratings with clock times; titles, genres, years"

_CATEGORIES = {
    "2014": (
        "Amazon_Instant_Video Apps_for_Android Automotive Baby Beauty Books CDs_and_Vinyl Cell_Phones_and_Accessories "
        "Clothing_Shoes_and_Jewelry Digital_Music Electronics Grocery_and_Gourmet_Food Health_and_Personal_Care "
        "Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden "
        "Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
    ),
    "2018": (
        "AMAZON_FASHION All_Beauty Appliances Arts_Crafts_and_Sewing Automotive Books CDs_and_Vinyl "
        "Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics Gift_Cards "
        "Grocery_and_Gourmet_Food Home_and_Kitchen Industrial_and_Scientific Kindle_Store Luxury_Beauty "
        "Magazine_Subscriptions Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies "
        "Prime_Pantry Software Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games"
    ),
    "2023": (
        "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Automotive Baby_Products "
        "Beauty_and_Personal_Care Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry "
        "Digital_Music Electronics Gift_Cards Grocery_and_Gourmet_Food Handmade_Products Health_and_Household "
        "Health_and_Personal_Care Home_and_Kitchen Industrial_and_Scientific Kindle_Store Magazine_Subscriptions "
        "Movies_and_TV Musical_Instruments Office_Products Patio_Lawn_and_Garden Pet_Supplies Software "
        "Sports_and_Outdoors Subscription_Boxes Tools_and_Home_Improvement Toys_and_Games Video_Games"
    ),
}
_AMAZON = {year: tuple(words.split()) for year, words in _CATEGORIES.items()}

_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"


def _amazon(year: str, category: str) -> DataSet:
    licence = "no licence stated by the publisher"
    if year == "2014":
        return DataSet(
            f"5-core reviews {category} to July 2014, times to the day; titles, brands, prices, categories",
            "https://jmcauley.ucsd.edu/data/amazon/",
            licence,
            "J. McAuley, C. Targett, Q. Shi, A. van den Hengel. Image-based Recommendations on Styles and Substitutes. "
            "SIGIR 2015.",
            (Http(f"{_SNAP}/reviews_{category}_5.json.gz"), Http(f"{_SNAP}/meta_{category}.json.gz")),
            originals.amazon_2014(category),
        )
    if year == "2018":
        return DataSet(
            f"all ratings {category} to October 2018, times to the day; titles, brands, prices, categories",
            "https://nijianmo.github.io/amazon/",
            licence,
            "J. Ni, J. Li, J. McAuley. Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained "
            "Aspects. EMNLP 2019.",
            (
                Http(f"{_UCSD}/amazon_v2/categoryFilesSmall/{category}.csv"),
                Http(f"{_UCSD}/amazon_v2/metaFiles2/meta_{category}.json.gz"),
            ),
            originals.amazon_2018(category),
        )
    return DataSet(
        f"5-core ratings {category} to September 2023, times to the millisecond; titles, stores, prices, categories",
        "https://amazon-reviews-2023.github.io/",
        licence,
        "Y. Hou et al. Bridging Language and Items for Retrieval and Recommendation. arXiv:2403.03952, 2024.",
        (
            Http(f"{_UCSD}/amazon_2023/benchmark/5core/rating_only/{category}.csv.gz"),
            Http(f"{_UCSD}/amazon_2023/raw/meta_categories/meta_{category}.jsonl.gz"),
        ),
        originals.amazon_2023(category),
    )


def _kuairand(version: str, about: str, md5: str) -> DataSet:
    return DataSet(
        f"{about}; clicks as the log, all impressions beside it; tags, authors, user profiles",
        "https://kuairand.com/",
        "CC BY-SA 4.0",
        "C. Gao et al. KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos. "
        "CIKM 2022.",
        (Http(f"https://zenodo.org/records/10439422/files/KuaiRand-{version}.tar.gz", f"md5:{md5}"),),
        (originals.kuairand(version.lower()),),
    )


_LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data/gowalla"

DATASETS: Mapping[str, DataSet] = {
    "movielens-100k": DataSet(
        "943 users, 1,682 films, 100,000 ratings 1997-98 with clock times; titles, genres, user profiles",
        "https://grouplens.org/datasets/movielens/100k/",
        _RESEARCH,
        _GROUPLENS,
        (
            Wheel(
                "recbole==1.2.1",
                "recbole-1.2.1-py3-none-any.whl",
                "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            ),
        ),
        (originals.RECBOLE_100K, originals.MOVIELENS_100K),
    ),
    "movielens-1m": _movielens(
        "1m",
        "6,040 users, 3,706 rated films, 1,000,209 ratings 2000-03 with clock times; titles, genres, user profiles",
        "md5:c4d9eecfca2ab87c1945afe126590906",
        originals.MOVIELENS_DAT,
    ),
    "movielens-latest-small": _movielens(
        "latest-small",
        f"610 users, about 100,000 {_CSV_ABOUT}; changes without notice",
        "",
        originals.MOVIELENS_CSV,
    ),
    "movielens-20m": _movielens(
        "20m", f"138,493 users, 20 M {_CSV_ABOUT}", "md5:cd245b17a1ae2cc31bb14903e1204af3", originals.MOVIELENS_CSV
    ),
    "movielens-25m": _movielens(
        "25m", f"162,541 users, 25 M {_CSV_ABOUT}", "md5:6b51fb2759a8657d3bfcbfc42b592ada", originals.MOVIELENS_CSV
    ),
    "movielens-32m": _movielens(
        "32m", f"200,948 users, 32 M {_CSV_ABOUT}", "md5:d472be332d4daa821edc399621853b57", originals.MOVIELENS_CSV
    ),
    "gowalla": DataSet(
        "29,858 users, 40,981 places, 1,027,370 check-ins without times, split at random for each user (LightGCN)",
        "https://snap.stanford.edu/data/loc-gowalla.html",
        "no licence stated by the publisher",
        "E. Cho, S. A. Myers, J. Leskovec. Friendship and Mobility. KDD 2011. "
        "The split: X. He et al. LightGCN. SIGIR 2020.",
        (Http(f"{_LIGHTGCN}/train.txt"), Http(f"{_LIGHTGCN}/test.txt")),
        (originals.LIGHTGCN,),
    ),
    "amazon-beauty": _amazon("2014", "Beauty"),
    "amazon-sports": _amazon("2014", "Sports_and_Outdoors"),
    **{f"amazon-{year}:CATEGORY": _amazon(year, "of a CATEGORY") for year in _AMAZON},
    "online-retail": DataSet(
        "4,334 customers, 3,659 products, 386,331 purchases 2010-11 with clock times; titles, prices, countries",
        "https://archive.ics.uci.edu/dataset/352/online+retail",
        "CC BY 4.0",
        "D. Chen. Online Retail. UCI Machine Learning Repository, 2015. doi:10.24432/C5BW33.",
        (Http("https://archive.ics.uci.edu/static/public/352/online+retail.zip"),),
        (originals.RETAIL,),
    ),
    "kuairand-1k": _kuairand(
        "1K", "1,000 users, 11.7 M impressions of short videos", "6b0b9c8222d67fcd4c676218edca3f1f"
    ),
    "kuairand-pure": _kuairand(
        "Pure", "27,285 users, 1.4 M impressions of 7,583 videos", "0820331067a3784d9691136f772b35a7"
    ),
}
