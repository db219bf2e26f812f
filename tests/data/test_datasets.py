"""Every named data set, read from a small archive in its publisher's own form, and from tidy folders."""

import gzip
import io
import json
import tarfile
import zipfile
from hashlib import md5
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from zhiyin.data import datasets
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, prepare
from zhiyin.errors import DataError, Failure

Files = dict[str, bytes]
"""An archive's members, in the publisher's own folders."""


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def laid(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def loaded(name: str, data: Path, tmp_path: Path) -> Source:
    return datasets.load(name, data=data, cache=tmp_path / "no-cache", out=tmp_path / "out")


def rows(path: Path | None) -> list[dict[str, Any]]:
    assert path is not None
    found: list[dict[str, Any]] = pa.parquet.read_table(path).to_pylist()
    return found


def prepared(source: Source, tmp_path: Path) -> Prepared:
    prepare(source, tmp_path / "prepared")
    return Prepared.open(tmp_path / "prepared")


# MovieLens

GENRES = 19


def flags(*on: int) -> str:
    return "|".join("1" if i in on else "0" for i in range(GENRES))


ML_100K: Files = {
    "ml-100k/README": b"SUMMARY",
    "ml-100k/u.data": b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t5\t881250949\n",
    "ml-100k/u.item": (
        f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya|{flags(5)}\n"
        f"302|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/x|{flags(4, 8, 18)}\n"
        f"267|unknown||||{flags(0)}\n"
    ).encode("latin-1"),
    "ml-100k/u.user": b"186|39|F|executive|00000\n196|49|M|writer|T8H1N\n1|24|M|technician|85711\n",
}


def test_movielens_100k_as_grouplens_ships_it(tmp_path: Path) -> None:
    source = loaded("movielens-100k", zipped(tmp_path / "ml-100k.zip", ML_100K), tmp_path)
    assert rows(source.events) == [
        {"user": "196", "item": "242", "time": 881250949, "rating": 3},
        {"user": "186", "item": "302", "time": 891717742, "rating": 3},
        {"user": "196", "item": "302", "time": 881250949, "rating": 5},
    ]
    assert rows(source.items) == [
        {"item": "242", "title": "Kolya (1996)", "genres": ["Comedy"], "year": 1996},
        {"item": "302", "title": "Misérables, Les (1995)", "genres": ["Children's", "Drama", "Western"], "year": 1995},
    ]
    assert rows(source.users) == [
        {"user": "186", "gender": "F", "age": 39, "occupation": "executive", "zip": "00000"},
        {"user": "196", "gender": "M", "age": 49, "occupation": "writer", "zip": "T8H1N"},
    ]
    assert (source.time_unit, source.columns) == ("s", ("rating",))
    data = prepared(source, tmp_path)
    assert data.users.ids() == ["186", "196"]
    assert data.items.ids(data.events.items) == ["302", "242", "302"], "equal times keep the order of the file"
    assert data.item_table.records(1, 2) == [
        {"title": "Misérables, Les (1995)", "genres": ["Children's", "Drama", "Western"], "year": 1995}
    ]


RECBOLE_100K: Files = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": (
        b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t4\t891717742\n"
    ),
    "recbole/dataset_example/ml-100k/ml-100k.item": (
        b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        b'242\tKolya\t1996\tComedy\n302\tL.A. "Confidential"\tV\tCrime Film-Noir Children\'s\n267\tunknown\t\tunknown\n'
    ),
    "recbole/dataset_example/ml-100k/ml-100k.user": (
        b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        b"196\t49\tM\twriter\t55105\n186\t39\tF\texecutive\t00000\n"
    ),
    "recbole/other/ml-100k.txt": b"",
}


def test_movielens_100k_out_of_recboles_wheel(tmp_path: Path) -> None:
    wheel = zipped(tmp_path / "recbole-1.2.1-py3-none-any.whl", RECBOLE_100K)
    source = loaded("movielens-100k", wheel, tmp_path)
    assert rows(source.events) == [
        {"user": "196", "item": "242", "time": 881250949, "rating": 3},
        {"user": "186", "item": "302", "time": 891717742, "rating": 4},
    ]
    assert rows(source.items) == [
        {"item": "242", "title": "Kolya", "genres": ["Comedy"], "year": 1996},
        {"item": "302", "title": 'L.A. "Confidential"', "genres": ["Crime", "Film-Noir", "Children's"], "year": None},
    ]
    assert rows(source.users) == [
        {"user": "196", "gender": "M", "age": 49, "occupation": "writer", "zip": "55105"},
        {"user": "186", "gender": "F", "age": 39, "occupation": "executive", "zip": "00000"},
    ]
    assert source.time_unit == "s"


ML_1M: Files = {
    "ml-1m/ratings.dat": b"1::1193::5::978300760\n2::661::3::978302109\n1::661::4::978300760\n",
    "ml-1m/movies.dat": (
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
        "1193::Möbius: One, Two (1975)::Drama\n9::Never rated (1990)::Comedy\n"
    ).encode("latin-1"),
    "ml-1m/users.dat": b"1::F::1::10::48067\n2::M::56::16::70072-1234\n3::M::25::15::55117\n",
}


def test_movielens_1m(tmp_path: Path) -> None:
    source = loaded("movielens-1m", zipped(tmp_path / "ml-1m.zip", ML_1M), tmp_path)
    assert rows(source.events) == [
        {"user": "1", "item": "1193", "time": 978300760, "rating": 5},
        {"user": "2", "item": "661", "time": 978302109, "rating": 3},
        {"user": "1", "item": "661", "time": 978300760, "rating": 4},
    ]
    assert rows(source.items) == [
        {
            "item": "661",
            "title": "James and the Giant Peach (1996)",
            "genres": ["Animation", "Children's", "Musical"],
            "year": 1996,
        },
        {"item": "1193", "title": "Möbius: One, Two (1975)", "genres": ["Drama"], "year": 1975},
    ]
    assert rows(source.users)[1] == {
        "user": "2", "gender": "M", "age": 56, "occupation": "16", "zip": "70072-1234",
    }  # fmt: skip
    assert len(rows(source.users)) == 2


def ml_csv(folder: str) -> Files:
    return {
        f"{folder}/ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n2,3,0.5,964981247\n",
        f"{folder}/movies.csv": (
            "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n"
            '3,"Crouching Tiger, ""Hidden"" Dragon (Wo hu cang long) (2000) ",(no genres listed)\n5,"Été",Drama\n'
        ).encode(),
        f"{folder}/tags.csv": b"userId,movieId,tag,timestamp\n",
        f"{folder}/README.txt": b"Summary",
    }


@pytest.mark.parametrize("version", ["latest-small", "20m", "25m", "32m"])
def test_movielens_since_2015(tmp_path: Path, version: str) -> None:
    archive = zipped(tmp_path / f"ml-{version}.zip", ml_csv(f"ml-{version}"))
    source = loaded(f"movielens-{version}", archive, tmp_path)
    assert rows(source.events) == [
        {"user": "1", "item": "1", "time": 964982703, "rating": 4.0},
        {"user": "2", "item": "3", "time": 964981247, "rating": 0.5},
    ]
    assert rows(source.items) == [
        {"item": "1", "title": "Toy Story (1995)", "genres": ["Adventure", "Animation"], "year": 1995},
        {
            "item": "3",
            "title": 'Crouching Tiger, "Hidden" Dragon (Wo hu cang long) (2000) ',
            "genres": [],
            "year": 2000,
        },
    ]
    assert source.users is None
    assert source.time_unit == "s"


# Gowalla

GOWALLA: Files = {
    "train.txt": b"0 10 11 12\n1 10 13\n2 \n3\n",
    "test.txt": b"0 14\n1 11 12 \n2\n",
}


def test_gowalla_in_lightgcns_split(tmp_path: Path) -> None:
    source = loaded("gowalla", laid(tmp_path / "gowalla", GOWALLA), tmp_path)
    found = [(row["user"], row["item"], row["split"]) for row in rows(source.events)]
    assert found == [
        ("0", "10", "train"), ("0", "11", "train"), ("0", "12", "train"), ("1", "10", "train"), ("1", "13", "train"),
        ("0", "14", "test"), ("1", "11", "test"), ("1", "12", "test"),
    ]  # fmt: skip
    assert (source.items, source.users, source.time_unit, source.columns) == (None, None, "position", ("split",))
    data = prepared(source, tmp_path)
    assert not data.clock
    assert data.events.columns["split"].tolist() == ["train"] * 3 + ["test"] + ["train"] * 2 + ["test"] * 2


def test_a_large_gowalla_keeps_its_order(tmp_path: Path) -> None:
    lines = {user: [f"{(user * 7 + i) % 5000}" for i in range(60)] for user in range(3000)}
    train = "".join(f"{user} {' '.join(items)}\n" for user, items in lines.items())
    files = {"train.txt": train.encode(), "test.txt": b"0 1\n"}
    source = loaded("gowalla", laid(tmp_path / "gowalla", files), tmp_path)
    table = pa.parquet.read_table(source.events)
    items: dict[str, list[str]] = {}
    for user, item in zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True):
        items.setdefault(user, []).append(item)
    assert items == {str(user): items + (["1"] if user == 0 else []) for user, items in lines.items()}
    orders: dict[str, list[tuple[int, int]]] = {}
    for user, item, time in zip(*(table[name].to_pylist() for name in ("user", "item", "time")), strict=True):
        orders.setdefault(user, []).append((time, int(item)))
    assert all(sorted(time for time, _ in order) == list(range(len(order))) for order in orders.values())
    assert max(orders["0"]) == (60, 1)  # its test item comes last
    drawn = [np.corrcoef(np.array(order[:60]).T)[0, 1] for order in orders.values()]
    assert abs(np.mean(drawn)) < 0.02  # in the file's order it would be near 1


# Amazon


def json_lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


REVIEWS_2014 = json_lines(
    {"reviewerID": "A1", "asin": "B01", "reviewerName": "x", "helpful": [0, 0], "reviewText": "a\nb", "overall": 5.0,
     "summary": "s", "unixReviewTime": 1391040000, "reviewTime": "01 30, 2014"},
    {"reviewerID": "A2", "asin": "B02", "overall": 1.0, "unixReviewTime": 1397779200, "reviewTime": "04 18, 2014"},
)  # fmt: skip
META_2014 = (
    b"{'asin': 'B01', 'title': \"It's a WAVE\", 'price': 9.94, 'imUrl': 'http://x', 'brand': 'W', "
    b"'related': {'also_bought': ['B02']}, 'salesRank': {'Beauty': 3}, "
    b"'categories': [['Beauty', 'Hair'], ['Beauty', 'Tools']]}\n"
    b"{'asin': 'B02', 'categories': [['Beauty']], 'description': 'no title, no price'}\n"
    b"{'asin': 'B03', 'title': 'never reviewed', 'categories': []}\n"
)
ITEMS_2014 = [
    {
        "item": "B01",
        "title": "It's a WAVE",
        "brand": "W",
        "price": 9.94,
        "categories": ["Beauty", "Hair", "Tools"],
    },
    {"item": "B02", "title": None, "brand": None, "price": None, "categories": ["Beauty"]},
]
EVENTS_2014 = [
    {"user": "A1", "item": "B01", "time": 1391040000, "rating": 5.0},
    {"user": "A2", "item": "B02", "time": 1397779200, "rating": 1.0},
]


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("amazon-beauty", "Beauty"),
        ("amazon-sports", "Sports_and_Outdoors"),
        ("amazon-2014:Video_Games", "Video_Games"),
    ],
)
def test_amazon_2014_reviews(tmp_path: Path, name: str, category: str) -> None:
    files = {
        f"reviews_{category}_5.json.gz": gzip.compress(REVIEWS_2014),
        f"meta_{category}.json.gz": gzip.compress(META_2014),
    }
    source = loaded(name, laid(tmp_path / "set", files), tmp_path)
    assert rows(source.events) == EVENTS_2014
    assert rows(source.items) == ITEMS_2014
    assert source.time_unit == "s"


def test_amazon_2014_ratings_and_unpacked_files(tmp_path: Path) -> None:
    files = {"ratings_Beauty.csv": b"A1,B01,5.0,1391040000\nA2,B02,1.0,1397779200\n", "meta_Beauty.json": META_2014}
    source = loaded("amazon-beauty", laid(tmp_path / "set", files), tmp_path)
    assert rows(source.events) == EVENTS_2014
    assert rows(source.items) == ITEMS_2014


def test_amazon_products_are_not_needed(tmp_path: Path) -> None:
    files = {"reviews_Beauty_5.json.gz": gzip.compress(REVIEWS_2014)}
    source = loaded("amazon-beauty", laid(tmp_path / "set", files), tmp_path)
    assert rows(source.events) == EVENTS_2014
    assert source.items is None


META_2018 = json_lines(
    {
        "asin": "B01",
        "title": "Dress",
        "brand": "",
        "price": "$1,234.50",
        "category": ["Clothing", "Women"],
        "rank": "1",
    },
    {"asin": "B02", "title": "Hat", "brand": "H", "price": ".a-box-inner{background-color:#fff}", "category": []},
)
ITEMS_2018 = [
    {"item": "B01", "title": "Dress", "brand": None, "price": 1234.5, "categories": ["Clothing", "Women"]},
    {"item": "B02", "title": "Hat", "brand": "H", "price": None, "categories": []},
]


@pytest.mark.parametrize("form", ["ratings", "reviews"])
def test_amazon_2018(tmp_path: Path, form: str) -> None:
    log = (
        {"All_Beauty.csv": b"B01,A1,5.0,1391040000\nB02,A2,1.0,1397779200\n"}
        if form == "ratings"
        else {"All_Beauty_5.json.gz": gzip.compress(REVIEWS_2014)}
    )
    files = {**log, "meta_All_Beauty.json.gz": gzip.compress(META_2018)}
    source = loaded("amazon-2018:All_Beauty", laid(tmp_path / "set", files), tmp_path)
    assert rows(source.events) == EVENTS_2014
    assert rows(source.items) == ITEMS_2018


def test_amazon_2023(tmp_path: Path) -> None:
    ratings = b"user_id,parent_asin,rating,timestamp\nAFKZ,B01,5.0,1487203465000\nAFKZ,B02,3.0,1487203465001\n"
    products = json_lines(
        {"main_category": "Beauty", "title": "Soap", "average_rating": 4.8, "price": 12.5, "store": "S",
         "categories": ["Beauty", "Soap"], "details": {"a": "b"}, "parent_asin": "B01", "bought_together": None},
        {"title": "Comb", "price": "from 7.00", "store": None, "categories": [], "parent_asin": "B02"},
    )  # fmt: skip
    files = {"All_Beauty.csv.gz": gzip.compress(ratings), "meta_All_Beauty.jsonl.gz": gzip.compress(products)}
    source = loaded("amazon-2023:All_Beauty", laid(tmp_path / "set", files), tmp_path)
    assert rows(source.events) == [
        {"user": "AFKZ", "item": "B01", "time": 1487203465000, "rating": 5.0},
        {"user": "AFKZ", "item": "B02", "time": 1487203465001, "rating": 3.0},
    ]
    assert rows(source.items) == [
        {"item": "B01", "title": "Soap", "brand": "S", "price": 12.5, "categories": ["Beauty", "Soap"]},
        {"item": "B02", "title": "Comb", "brand": None, "price": None, "categories": []},
    ]
    assert source.time_unit == "ms"


# Online Retail


def workbook(lines: list[list[str | float | None]]) -> bytes:
    """An .xlsx file as spreadsheet programs write it: shared strings, cells left out where there is nothing."""
    strings: dict[str, int] = {}
    body = ""
    for number, line in enumerate(lines, 1):
        body += f'<row r="{number}">'
        for place, value in enumerate(line):
            at = f"{chr(ord('A') + place)}{number}"
            if isinstance(value, str):
                body += f'<c r="{at}" t="s"><v>{strings.setdefault(value, len(strings))}</v></c>'
            elif value is not None:
                body += f'<c r="{at}"><v>{value!r}</v></c>'
        body += "</row>"
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in strings)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/sharedStrings.xml", f"<?xml version='1.0'?><sst {main}>{shared}</sst>")
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f"<?xml version='1.0'?><worksheet {main}><sheetData>{body}</sheetData></worksheet>",
        )
    return file.getvalue()


RETAIL_HEAD: list[str | float | None] = [
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
]  # fmt: skip
EARLY = 40513.351388888892  # 2010-12-01 08:26
LATE = 40513.5
RETAIL_LINES: list[list[str | float | None]] = [
    RETAIL_HEAD,
    [536365, "85123A", 'WHITE HANGING HEART & "CO"', 6, EARLY, 2.55, 17850, "United Kingdom"],
    [536365, "85123a", 'WHITE HANGING HEART & "CO"', 2, EARLY, 2.95, 17850, "United Kingdom"],
    [536365, 71053, "WHITE METAL LANTERN", 6, EARLY, 3.39, 17850, "United Kingdom"],
    ["C536379", "71053", "WHITE METAL LANTERN", -1, LATE, 3.39, 17850, "United Kingdom"],
    [536370, "POST", "POSTAGE", 3, LATE, 18, 12583, "France"],
    [536370, 71053, "WHITE METAL LANTERN, large", 4, LATE, 3, 12583, "France"],
    [536371, 71053, "WHITE METAL LANTERN", 1, LATE, 5, None, "France"],
    [536372, 22139, None, 10, LATE, 0, 12583, "France"],
    [536372, 71053, None, -3, LATE, 1, 12583, "France"],
]


def test_online_retail(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "online+retail.zip", {"Online Retail.xlsx": workbook(RETAIL_LINES)})
    source = loaded("online-retail", archive, tmp_path)
    assert rows(source.events) == [
        {
            "user": "17850", "item": "85123A", "time": 1291191960, "invoice": "536365", "quantity": 8,
            "unit_price": pytest.approx((6 * 2.55 + 2 * 2.95) / 8),
        },
        {
            "user": "17850", "item": "71053", "time": 1291191960, "invoice": "536365", "quantity": 6,
            "unit_price": pytest.approx(3.39),
        },
        {
            "user": "12583", "item": "71053", "time": 1291204800, "invoice": "536370", "quantity": 4,
            "unit_price": pytest.approx(3.0),
        },
    ]  # fmt: skip
    assert rows(source.items) == [
        {"item": "71053", "title": "WHITE METAL LANTERN", "median_price": pytest.approx(3.39)},
        {"item": "85123A", "title": 'WHITE HANGING HEART & "CO"', "median_price": pytest.approx(2.75)},
    ]
    assert rows(source.users) == [
        {"user": "12583", "country": "France"},
        {"user": "17850", "country": "United Kingdom"},
    ]
    assert source.columns == ("invoice", "quantity", "unit_price")
    assert len(prepared(source, tmp_path).events) == 3


# KuaiRand

KUAI_LOG = (
    b"user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    b"play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)


def impression(user: int, video: int, time: int, click: int, random: int) -> bytes:
    return f"{user},{video},20220408,1000,{time},{click},0,0,0,0,0,1,12345,20000,0,0,0,{random},1\n".encode()


def kuairand(version: str, folder: str) -> Files:
    return {
        f"{folder}/data/log_standard_4_08_to_4_21_{version}.csv": KUAI_LOG
        + impression(0, 7, 1649400000001, 1, 0)
        + impression(0, 8, 1649400000002, 0, 0),
        f"{folder}/data/log_standard_4_22_to_5_08_{version}.csv": KUAI_LOG + impression(1, 8, 1650600000000, 1, 0),
        f"{folder}/data/log_random_4_22_to_5_08_{version}.csv": KUAI_LOG + impression(1, 9, 1650600000001, 1, 1),
        f"{folder}/data/video_features_basic_{version}.csv": (
            b"video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
            b"server_height,music_id,music_type,tag\n"
            b'7,70,NORMAL,2022-04-01,LongImport,0.0,20000.0,720,1280,700,9.0,"12,65"\n'
            b"8,80,AD,2022-04-01,ShortImport,0.0,,720,1280,800,9.0,\n"
            b"9,90,NORMAL,2022-04-01,Web,0.0,1.0,720,1280,900,9.0,39\n"
        ),
        f"{folder}/data/user_features_{version}.csv": (
            b"user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
            b"follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,"
            b"register_days,register_days_range,onehot_feat0\n"
            b'0,full_active,0,0,1,5,"(0,10]",4,"[1,10)",2,"[1,5)",107,61-90,0\n'
            b'1,high_active,0,0,0,386,"(250,500]",4,"[1,10)",2,"[1,5)",327,181-365,1\n'
        ),
    }


@pytest.mark.parametrize(("version", "folder"), [("1k", "KuaiRand-1K"), ("pure", "KuaiRand-Pure")])
def test_kuairand(tmp_path: Path, version: str, folder: str) -> None:
    archive = tarred(tmp_path / f"{folder}.tar.gz", kuairand(version, folder))
    source = loaded(f"kuairand-{version}", archive, tmp_path)
    reactions = {"is_like": 0, "long_view": 1, "play_time_ms": 12345.0, "duration_ms": 20000.0, "tab": "1"}
    assert rows(source.events) == [
        {"user": "0", "item": "7", "time": 1649400000001, **reactions},
        {"user": "1", "item": "8", "time": 1650600000000, **reactions},
    ]
    shown = rows(tmp_path / "out" / "impressions.parquet")
    assert [(row["user"], row["item"], row["is_click"], row["is_rand"]) for row in shown] == [
        ("0", "7", 1, 0), ("0", "8", 0, 0), ("1", "8", 1, 0), ("1", "9", 1, 1),
    ]  # fmt: skip
    assert rows(source.items) == [
        {
            "item": "7", "author": "70", "video_type": "NORMAL", "upload_type": "LongImport", "duration_ms": 20000.0,
            "music": "700", "tags": ["12", "65"],
        },
        {
            "item": "8", "author": "80", "video_type": "AD", "upload_type": "ShortImport", "duration_ms": None,
            "music": "800", "tags": None,
        },
    ]  # fmt: skip
    assert rows(source.users)[0] == {
        "user": "0", "user_active_degree": "full_active", "is_live_streamer": "0", "is_video_author": "1",
        "follow_user_num_range": "(0,10]", "fans_user_num_range": "[1,10)", "friend_user_num_range": "[1,5)",
        "register_days_range": "61-90",
    }  # fmt: skip
    assert source.time_unit == "ms"


def test_kuairand_without_features(tmp_path: Path) -> None:
    files = {name: content for name, content in kuairand("1k", "x").items() if "features" not in name}
    source = loaded("kuairand-1k", laid(tmp_path / "set", files), tmp_path)
    assert (source.items, source.users) == (None, None)
    assert len(rows(source.events)) == 2


# where they lie


def test_an_archive_a_folder_of_it_and_its_own_folder_read_the_same(tmp_path: Path) -> None:
    ways = [
        zipped(tmp_path / "any-name.zip", ML_1M),
        tarred(tmp_path / "ml.tgz", ML_1M),
        laid(tmp_path / "unpacked", ML_1M),
        laid(tmp_path / "deep", {f"a/b/{name}": content for name, content in ML_1M.items()}),
        zipped(laid(tmp_path / "cache", {"x": b""}) / "ml-1m.zip", ML_1M).parent,
        laid(tmp_path / "all", {f"movielens-1m/{name}": content for name, content in ML_1M.items()}),
    ]
    found = []
    for i, way in enumerate(ways):
        source = datasets.load("movielens-1m", data=way, cache=tmp_path / "no", out=tmp_path / f"out{i}")
        found.append([rows(path) for path in (source.events, source.items, source.users)])
    assert all(one == found[0] for one in found)
    assert not (tmp_path / "no").exists()


def test_a_macs_shadow_files_are_passed_over(tmp_path: Path) -> None:
    shadows = {f"__MACOSX/{name}": b"\x00" for name in ML_1M} | {"ml-1m/._ratings.dat": b"\x00"}
    source = loaded("movielens-1m", zipped(tmp_path / "x.zip", {**ML_1M, **shadows}), tmp_path)
    assert len(rows(source.events)) == 3


def refused(name: str, data: Path, tmp_path: Path) -> str:
    """The message, without folders; and nothing is written."""
    with pytest.raises(DataError) as caught:
        loaded(name, data, tmp_path)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tidying*"))
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    assert refused("movielens-1m", tmp_path / "nowhere", tmp_path) == (
        "nowhere: there is no such folder or archive. Give --data a path that exists."
    )


def test_a_folder_without_the_files_says_which_are_missing(tmp_path: Path) -> None:
    files = {name: content for name, content in ML_1M.items() if "movies" not in name}
    assert refused("movielens-1m", laid(tmp_path / "part", files), tmp_path) == (
        "part: movies.dat not found; expected ratings.dat, movies.dat, users.dat, or a tidy folder with "
        "events.parquet. Give --data the folder or the archive that holds them."
    )
    assert refused("movielens-100k", laid(tmp_path / "empty", {"x": b""}), tmp_path).startswith("empty: ")
    assert "ml-100k.inter, ml-100k.item, ml-100k.user or u.data, u.item, u.user" in refused(
        "movielens-100k", tmp_path / "empty", tmp_path
    )
    assert refused("gowalla", zipped(tmp_path / "other.zip", ML_1M), tmp_path).startswith(
        "other.zip: train.txt and test.txt not found; "
    )


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_a_broken_archive(tmp_path: Path, ending: str) -> None:
    big = {**ML_1M, "ml-1m/ratings.dat": b"".join(b"%d::7::5::97830%d\n" % (i, i % 89 + 1000) for i in range(9999))}
    archive = (zipped if ending == "zip" else tarred)(tmp_path / f"ml.{ending}", big)
    whole = archive.read_bytes()
    for part in (whole[:-200], whole[: len(whole) // 2], b"", b"no archive at all"):
        archive.write_bytes(part)
        message = refused("movielens-1m", archive, tmp_path)
        assert message.startswith(f"ml.{ending}: the archive is broken (")
        assert message.endswith("expected the file as its publisher ships it. Delete it and fetch it again.")


def test_a_damaged_member(tmp_path: Path) -> None:
    archive = tmp_path / "ml.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for name, content in ML_1M.items():
            opened.writestr(name, content)
    archive.write_bytes(archive.read_bytes().replace(b"1::1193::5", b"1::1193::4"))
    assert refused("movielens-1m", archive, tmp_path).startswith("ml.zip: the archive is broken (Bad CRC-32")


def test_damaged_packing(tmp_path: Path) -> None:
    lines = b"".join(b"%d::7::5::%d\n" % (i * 7919 % 6007, i * i % 99991) for i in range(9999))
    files = {"ml-1m/ratings.dat": lines, **{name: content for name, content in ML_1M.items() if "ratings" not in name}}
    for pack, ending in ((zipped, "zip"), (tarred, "tar.gz")):
        archive = pack(tmp_path / f"ml.{ending}", files)
        whole = bytearray(archive.read_bytes())
        middle = len(whole) // 2
        archive.write_bytes(whole[:middle] + b"\xff" * 50 + whole[middle + 50 :])
        assert refused("movielens-1m", archive, tmp_path).startswith(f"ml.{ending}: the archive is broken (")
    zipped(tmp_path / "ml.zip", files)
    whole = bytearray((tmp_path / "ml.zip").read_bytes())
    whole[30 + len("ml-1m/ratings.dat")] |= 0b110  # a block of a type that there is not
    (tmp_path / "ml.zip").write_bytes(whole)
    assert refused("movielens-1m", tmp_path / "ml.zip", tmp_path).startswith("ml.zip: the archive is broken (Error -3")


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    files = {**ML_1M, "ml-1m/ratings.dat": b"1::1193::five::978300760\n"}
    message = refused("movielens-1m", laid(tmp_path / "set", files), tmp_path)
    assert message.startswith("set: its events cannot be read: ")
    assert "five" in message
    assert message.endswith("expected the files as their publisher ships them. Fetch them again.")
    files = {**ML_1M, "ml-1m/users.dat": b"1,F,1,10,48067\n"}
    assert refused("movielens-1m", laid(tmp_path / "set", files), tmp_path).startswith(
        "set: its users cannot be read: "
    )


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (gzip.compress(META_2014)[:-40], "set/meta_Beauty.json.gz: the file is broken ("),
        (b"not gzip", "set/meta_Beauty.json.gz: the file is broken ("),
        (gzip.compress(META_2014 + b"{'asin': \n"), "set/meta_Beauty.json.gz, line 4: no product ("),
        (gzip.compress(b"\xff\xfe\n"), "set/meta_Beauty.json.gz, line 1: no product ("),
        (gzip.compress(b"7\n"), "set/meta_Beauty.json.gz, line 1: no product ("),
    ],
)
def test_products_that_cannot_be_read(tmp_path: Path, meta: bytes, words: str) -> None:
    files = {"reviews_Beauty_5.json.gz": gzip.compress(REVIEWS_2014), "meta_Beauty.json.gz": meta}
    assert refused("amazon-beauty", laid(tmp_path / "set", files), tmp_path).startswith(words)


def test_a_disk_that_cannot_be_written_is_a_failure_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        Failure, match="the tidy files could not be written: .*Check the disk, its space and its rights"
    ):
        datasets.load("movielens-1m", data=laid(tmp_path / "set", ML_1M), cache=tmp_path, out=tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "in the way"


def test_older_tidy_files_stay_when_the_new_ones_cannot_be_made(tmp_path: Path) -> None:
    source = loaded("movielens-1m", laid(tmp_path / "set", ML_1M), tmp_path)
    before = source.events.read_bytes()
    (tmp_path / "set" / "ml-1m" / "ratings.dat").write_bytes(b"1::2::x::y\n")
    with pytest.raises(DataError):
        loaded("movielens-1m", tmp_path / "set", tmp_path)
    assert source.events.read_bytes() == before


# tidy folders


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table(columns), path)
    return path


def test_a_tidy_folder_is_read_for_any_name_and_ids_become_text(tmp_path: Path) -> None:
    parquet(
        tmp_path / "set" / "events.parquet", user_id=[7, 7, 8], item_id=["b", "a", "b"], time=[0, 1, 0], stars=[1.0] * 3
    )
    parquet(tmp_path / "set" / "items.parquet", item_id=["a", "b", "c"], title=["A", "B", "C"])
    parquet(tmp_path / "set" / "users.parquet", user_id=[7, 8, 9], age=[30, 40, 50])
    source = loaded("movielens-1m", tmp_path / "set", tmp_path)
    assert rows(source.events) == [
        {"user": "7", "item": "b", "time": 0, "stars": 1.0},
        {"user": "7", "item": "a", "time": 1, "stars": 1.0},
        {"user": "8", "item": "b", "time": 0, "stars": 1.0},
    ]
    assert rows(source.items) == [{"item": "a", "title": "A"}, {"item": "b", "title": "B"}]
    assert rows(source.users) == [{"user": "7", "age": 30}, {"user": "8", "age": 40}]
    assert (source.time_unit, source.columns) == ("position", ("stars",))
    assert not prepared(source, tmp_path).clock


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([1_290_000_000, 1_323_000_000], "s"),
        ([1_290_000_000_000, 1_323_000_000_000], "ms"),
        ([0, 99], "position"),
        (pa.array([1_290_000_000, 1_323_000_000], pa.timestamp("s")), "iso"),
    ],
)
def test_a_tidy_logs_unit_is_known_by_its_times(tmp_path: Path, times: Any, unit: str) -> None:
    parquet(tmp_path / "online-retail" / "events.parquet", user=["u", "v"], item=["i", "j"], time=times)
    source = loaded("online-retail", tmp_path, tmp_path)
    assert source.time_unit == unit
    assert len(prepared(source, tmp_path).events) == 2


def test_a_tidy_split_without_times_is_put_in_order(tmp_path: Path) -> None:
    parquet(tmp_path / "gowalla" / "train.parquet", user=["u", "v", "u"], item=["a", "a", "b"])
    parquet(tmp_path / "gowalla" / "test.parquet", user=["v", "u"], item=["c", "c"])
    source = loaded("gowalla", tmp_path / "gowalla", tmp_path)
    found = [(row["user"], row["item"], row["split"], row["time"]) for row in rows(source.events)]
    drawn = sorted("ab", key=lambda item: md5(f"u {item}".encode()).hexdigest())  # noqa: S324 – a draw, no secret
    assert found == [
        ("u", "a", "train", drawn.index("a")), ("v", "a", "train", 0), ("u", "b", "train", drawn.index("b")),
        ("v", "c", "test", 1), ("u", "c", "test", 2),
    ]  # fmt: skip
    assert source.time_unit == "position"


def test_a_tidy_folder_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    parquet(folder / "events.parquet", user=["u"], thing=["a"])
    assert refused("gowalla", folder, tmp_path) == (
        "set: the tidy events have no column 'item' or 'item_id'; expected user, item, and time where there is one"
    )
    (folder / "events.parquet").write_bytes(b"PAR1")
    message = refused("gowalla", folder, tmp_path)
    assert message.startswith("set/events.parquet: the file cannot be read: ")
    assert message.endswith("; expected a Parquet file")
