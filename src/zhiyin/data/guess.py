"""A first recipe from a user's own files: what each column could be, and why.

Only the first `SAMPLE` rows are looked at, and all rows only to count items; whatever is guessed stands in the recipe
with its reason.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import duckdb

from zhiyin.data import checks
from zhiyin.data.draft import draft
from zhiyin.data.proposals import Proposal, key, propose
from zhiyin.data.readers import Loaded, load, quoted
from zhiyin.data.sources import Source, TimeUnit
from zhiyin.errors import DataError

SAMPLE = 100_000

NO_TIME = "none"
"""The name that says: there is no time column, the rows are in order."""

USERS = (
    "userid", "user", "uid", "useridx", "visitorid", "visitor", "customerid", "customer", "clientid", "client",
    "memberid", "member", "accountid", "account", "buyerid", "buyer", "reviewerid", "reviewer", "personid", "person",
    "listenerid", "readerid", "playerid", "viewerid", "deviceid", "sessionid", "session", "用户id", "用户",
)  # fmt: skip
ITEMS = (
    "itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "sku", "asin", "parentasin",
    "articleid", "article", "bookid", "book", "isbn", "songid", "song", "trackid", "track", "artistid", "videoid",
    "video", "newsid", "news", "adid", "courseid", "course", "gameid", "game", "appid", "poiid", "poi", "venueid",
    "venue", "locationid", "businessid", "business", "listingid", "listing", "hotelid", "contentid", "content",
    "postid", "docid", "goodsid", "goods", "stockcode", "商品id", "商品", "物品id", "物品",
)  # fmt: skip
TIMES = (
    "timestamp", "ts", "time", "datetime", "eventtime", "eventtimestamp", "createdat", "created", "timestampms",
    "timems", "unixtime", "unixreviewtime", "invoicedate", "orderdate", "purchasedate", "date", "day", "when",
    "时间戳", "时间",
)  # fmt: skip
REQUEST = (
    "device", "devicetype", "platform", "os", "browser", "app", "country", "city", "region", "language", "locale",
    "channel", "page", "surface", "network", "store", "shop",
)  # fmt: skip
"""What is likely known when a request comes, before anything was chosen."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A source, the features its columns could be, and the words that say why, by the key they explain.

    `context`: what is known when a request comes; `left`: the log's other columns. `items`, `events`: about how many
    there are. `hours`: the log's clock tells hours; `weeks`: it spans two weeks; `bursts`: most users come once.
    """

    source: Source
    why: dict[str, str]
    user: tuple[Proposal, ...]
    item: tuple[Proposal, ...]
    context: tuple[Proposal, ...]
    left: tuple[Proposal, ...]
    items: int
    events: int
    hours: bool
    weeks: bool
    bursts: bool


def inspect(
    events: Path,
    items: Path | None = None,
    users: Path | None = None,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    time_unit: str | None = None,
) -> Guess:
    """Look at the files and guess. `user`, `item`, `time`, `time_unit` say what is known; `time = "none"`: no column.

    Raises `DataError` for files that cannot be read, and for a column that cannot be guessed: it lists the columns.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": "false", "TimeZone": "UTC"}) as connection:
        given = {one: f"--{flag}" for flag, one in (("user", user), ("item", item)) if one}
        if time and time != NO_TIME:
            given[time] = "--time"
        log = load(connection, events, "log", given, whole=True, limit=SAMPLE)
        if not log.count():
            raise DataError("the log has no events", where=str(events), expected="at least one row")
        tables = {
            side: load(connection, path, f"{side}_table", {}, whole=True, limit=SAMPLE)
            for side, path in (("user", users), ("item", items))
            if path
        }
        columns = _Columns(log, tables)
        return columns.guess(user, item, time, time_unit)


def recipe_text(guess: Guess, home: str, folder: Path | None = None) -> str:
    """The recipe, a comment on every guess. `home`: where zhiyin puts what it makes; `folder`: where the recipe will
    be, so that files inside it are named relative to it (all others, and all without it, absolutely)."""
    return draft(guess, home, folder)
