"""How each publisher ships its data, as queries over the files: one `Form` for each."""
# ruff: noqa: S608 – nothing from outside enters these queries but paths, and those as literals

import ast
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhiyin.data.tidy import File, Form, in_drawn_order
from zhiyin.data.workbook import to_csv
from zhiyin.errors import DataError


def _csv(*columns: str, delimiter: str = ",", quote: str = '"', encoding: str = "utf-8", header: bool = True) -> str:
    """A DuckDB scan of text columns; `columns` where the file has no header."""
    named = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
    columns_sql = f", auto_detect = false, columns = {{{{{named}}}}}" if columns else ""
    return (
        f"read_csv({{}}, header = {str(header and not columns).lower()}, all_varchar = true, delim = '{delimiter}', "
        f"quote = '{quote}', escape = '{quote}', encoding = '{encoding}'{columns_sql})"
    )


def _json(**columns: str) -> str:
    named = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_json({{}}, format = 'newline_delimited', columns = {{{{{named}}}}})"


_YEAR = r"try_cast(nullif(regexp_extract(title, '\((\d{{4}})\)\s*$', 1), '') as smallint) as year"
_GENRES = "list_filter(string_split({}, '{}'), lambda g: g not in ('', '(no genres listed)')) as genres"

RECBOLE_100K = Form(
    files={
        "inter": File("ml-100k.inter", _csv(delimiter="\\t", quote="")),
        "item": File("ml-100k.item", _csv(delimiter="\\t", quote="")),
        "user": File("ml-100k.user", _csv(delimiter="\\t", quote="")),
    },
    tables={
        "events": 'select "user_id:token" as user, "item_id:token" as item, "timestamp:float"::double::bigint as time, '
        '"rating:float"::double::tinyint as rating from {inter}',
        "items": 'select "item_id:token" as item, "movie_title:token_seq" as title, '
        + _GENRES.format('"class:token_seq"', " ")
        + ', try_cast("release_year:token" as smallint) as year from {item}',
        "users": 'select "user_id:token" as user, "gender:token" as gender, "age:token"::smallint as age, '
        '"occupation:token" as occupation, "zip_code:token" as zip from {user}',
    },
    time_unit="s",
)
"""MovieLens-100K in the atomic files of RecBole."""

_WORDS = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
)
_FLAGS = _WORDS.split()
_FLAGGED = ", ".join(
    f"case when f{i} = '1' then '{name.replace(chr(39), 2 * chr(39))}' end" for i, name in enumerate(_FLAGS)
)

MOVIELENS_100K = Form(
    files={
        "data": File("u.data", _csv("user", "item", "rating", "time", delimiter="\\t", quote="")),
        "item": File(
            "u.item",
            _csv(
                *("item", "title", "released", "video", "imdb"),
                *(f"f{i}" for i in range(len(_FLAGS))),
                delimiter="|",
                quote="",
                encoding="latin-1",
            ),
        ),
        "user": File("u.user", _csv("user", "age", "gender", "occupation", "zip", delimiter="|", quote="")),
    },
    tables={
        "events": "select user, item, time::bigint as time, rating::tinyint as rating from {data}",
        "items": f"select item, title, list_filter([{_FLAGGED}], lambda g: g is not null) as genres, {_YEAR} "
        "from {item}",
        "users": "select user, gender, age::smallint as age, occupation, zip from {user}",
    },
    time_unit="s",
)
"""MovieLens-100K as GroupLens ships it."""


def _dat(*columns: str) -> str:
    return _csv(*columns, delimiter="::", quote="", encoding="latin-1")


MOVIELENS_DAT = Form(
    files={
        "ratings": File("ratings.dat", _dat("user", "item", "rating", "time")),
        "movies": File("movies.dat", _dat("item", "title", "genres")),
        "users": File("users.dat", _dat("user", "gender", "age", "occupation", "zip")),
    },
    tables={
        "events": "select user, item, time::bigint as time, rating::tinyint as rating from {ratings}",
        "items": f"select item, title, {_GENRES.format('genres', '|')}, {_YEAR} from {{movies}}",
        "users": "select user, gender, age::smallint as age, occupation, zip from {users}",
    },
    time_unit="s",
)
"""MovieLens-1M: `::` between columns, Latin-1."""

MOVIELENS_CSV = Form(
    files={"ratings": File("ratings.csv", _csv()), "movies": File("movies.csv", _csv())},
    tables={
        "events": 'select "userId" as user, "movieId" as item, "timestamp"::bigint as time, rating::float as rating '
        "from {ratings}",
        "items": f'select "movieId" as item, title, {_GENRES.format("genres", "|")}, {_YEAR} from {{movies}}',
    },
    time_unit="s",
)
"""MovieLens since 2015."""

_LINE = r"""select string_split(trim(line), ' ')[1] as user, unnest(string_split(trim(line), ' ')[2:]) as item
from {} where trim(line) like '% %'"""

LIGHTGCN = Form(
    files={name: File(f"{name}.txt", _csv("line", delimiter="\\t", quote="")) for name in ("train", "test")},
    tables={
        "events": in_drawn_order(
            " union all ".join(
                f"select *, '{name}' as split from ({_LINE.format(f'{{{name}}}')})" for name in ("train", "test")
            )
        )
    },
    time_unit="position",
)
"""One line a user: the user, then the items, by their numbers. Training items come first in a user's positions, in an
order that is drawn; `split` tells them."""

RETAIL = Form(
    files={"lines": File("Online Retail.xlsx", _csv(), convert=to_csv)},
    tables={
        "events": """
            select "CustomerID" as user, upper("StockCode") as item,
                round(("InvoiceDate"::double - 25569) * 86400)::bigint as time, "InvoiceNo" as invoice,
                sum("Quantity"::bigint)::bigint as quantity,
                sum("Quantity"::bigint * "UnitPrice"::double) / sum("Quantity"::bigint) as unit_price
            from (select *, row_number() over () as n from {lines})
            where "CustomerID" <> '' and "InvoiceNo" not like 'C%' and regexp_matches("StockCode", '^[0-9]{{5}}')
                and "Quantity"::bigint > 0 and "UnitPrice"::double > 0
            group by all order by min(n)""",
        "items": """
            select upper("StockCode") as item, mode("Description") as title, median("UnitPrice"::double) as median_price
            from {lines} where "UnitPrice"::double > 0 group by 1 order by 1""",
        "users": """select "CustomerID" as user, mode("Country") as country from {lines} group by 1 order by 1""",
    },
    time_unit="s",
)
"""Purchases of products by known customers: no cancellations, postage or fees; equal lines of an invoice are added."""


def kuairand(version: str) -> Form:
    """KuaiRand-1K ("1k") or KuaiRand-Pure ("pure"): clicks are the log, all impressions are kept beside it."""
    logs = {
        "early": f"log_standard_4_08_to_4_21_{version}.csv",
        "late": f"log_standard_4_22_to_5_08_{version}.csv",
        "random": f"log_random_4_22_to_5_08_{version}.csv",
    }
    event = "user_id as user, video_id as item, time_ms::bigint as time"
    reactions = (
        "is_like::tinyint as is_like, long_view::tinyint as long_view, play_time_ms::double as play_time_ms, "
        "duration_ms::double as duration_ms, tab"
    )
    clicked = [f"select {event}, {reactions} from {{{log}}} where is_click = '1'" for log in ("early", "late")]
    flags = "is_click::tinyint as is_click, is_rand::tinyint as is_rand"
    shown = [f"select {event}, {flags}, {reactions} from {{{log}}}" for log in logs]
    return Form(
        files={
            **{short: File(name, _csv()) for short, name in logs.items()},
            "videos": File(f"video_features_basic_{version}.csv", _csv(), needed=False),
            "users": File(f"user_features_{version}.csv", _csv(), needed=False),
        },
        tables={
            "events": " union all ".join(clicked),
            "impressions": " union all ".join(shown),
            "items": "select video_id as item, author_id as author, video_type, upload_type, "
            "try_cast(video_duration as double) as duration_ms, music_id as music, "
            "list_filter(string_split(tag, ','), lambda t: t <> '') as tags from {videos}",
            "users": "select user_id as user, user_active_degree, is_live_streamer, is_video_author, "
            "follow_user_num_range, fans_user_num_range, friend_user_num_range, register_days_range from {users}",
        },
        time_unit="ms",
    )


def amazon_2014(category: str) -> tuple[Form, ...]:
    """5-core reviews as JSON lines, or all ratings as csv; products as Python literals, one a line."""
    meta = File(
        f"meta_{category}.json.gz",
        _json(asin="VARCHAR", title="VARCHAR", brand="VARCHAR", price="DOUBLE", categories="VARCHAR[]"),
        convert=_literals,
        needed=False,
    )
    items = "select asin as item, title, brand, price, categories from {meta}"
    reviews = _json(reviewerID="VARCHAR", asin="VARCHAR", overall="FLOAT", unixReviewTime="BIGINT")
    return (
        Form(
            files={"reviews": File(f"reviews_{category}_5.json.gz", reviews), "meta": meta},
            tables={
                "events": 'select "reviewerID" as user, asin as item, "unixReviewTime" as time, overall as rating '
                "from {reviews}",
                "items": items,
            },
            time_unit="s",
        ),
        Form(
            files={"ratings": File(f"ratings_{category}.csv", _csv("user", "item", "rating", "time")), "meta": meta},
            tables={
                "events": "select user, item, time::bigint as time, rating::float as rating from {ratings}",
                "items": items,
            },
            time_unit="s",
        ),
    )


def amazon_2018(category: str) -> tuple[Form, ...]:
    """All ratings as csv (the item comes first), or 5-core reviews as JSON lines; products as JSON lines."""
    meta = File(
        f"meta_{category}.json.gz",
        _json(asin="VARCHAR", title="VARCHAR", brand="VARCHAR", price="VARCHAR", category="VARCHAR[]"),
        needed=False,
    )
    items = (
        "select asin as item, title, nullif(brand, '') as brand, "
        "try_cast(replace(replace(price, '$', ''), ',', '') as double) as price, category as categories from {meta}"
    )
    reviews = _json(reviewerID="VARCHAR", asin="VARCHAR", overall="FLOAT", unixReviewTime="BIGINT")
    return (
        Form(
            files={"ratings": File(f"{category}.csv", _csv("item", "user", "rating", "time")), "meta": meta},
            tables={
                "events": "select user, item, time::bigint as time, rating::float as rating from {ratings}",
                "items": items,
            },
            time_unit="s",
        ),
        Form(
            files={"reviews": File(f"{category}_5.json.gz", reviews), "meta": meta},
            tables={
                "events": 'select "reviewerID" as user, asin as item, "unixReviewTime" as time, overall as rating '
                "from {reviews}",
                "items": items,
            },
            time_unit="s",
        ),
    )


def amazon_2023(category: str) -> tuple[Form, ...]:
    """5-core ratings as csv with a header, times in milliseconds; products as JSON lines."""
    meta = File(
        f"meta_{category}.jsonl.gz",
        _json(parent_asin="VARCHAR", title="VARCHAR", store="VARCHAR", price="VARCHAR", categories="VARCHAR[]"),
        needed=False,
    )
    return (
        Form(
            files={"ratings": File(f"{category}.csv.gz", _csv()), "meta": meta},
            tables={
                "events": 'select user_id as user, parent_asin as item, "timestamp"::bigint as time, '
                "rating::float as rating from {ratings}",
                "items": "select parent_asin as item, title, store as brand, try_cast(price as double) as price, "
                "categories from {meta}",
            },
            time_unit="ms",
        ),
    )


def _literals(path: Path, target: Path) -> None:
    """The products of 2014, one Python dict a line, as JSON lines; their paths of categories as one flat list."""
    with target.open("w", encoding="utf-8") as file:
        for number, line in enumerate(_lines(path), 1):
            product = _literal(line, path, number)
            kept = {name: product[name] for name in ("asin", "title", "brand", "price") if name in product}
            flat = dict.fromkeys(one for way in product.get("categories", ()) for one in way)
            file.write(json.dumps(kept | {"categories": list(flat)}, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[bytes]:
    opening = gzip.open if path.name.endswith(".gz") else open
    try:
        with opening(path, "rb") as lines:
            yield from lines
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the file is broken ({error})", where=str(path), remedy="Fetch it again.") from None


def _literal(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        product: dict[str, Any] = dict(ast.literal_eval(line.decode()))
    except (ValueError, SyntaxError, TypeError) as error:
        raise DataError(
            f"no product ({error})",
            where=f"{path}, line {number}",
            expected="a Python dict, as the publisher ships it",
            remedy="Fetch the file again.",
        ) from None
    return product
