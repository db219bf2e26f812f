"""A first recipe from a user's own files: what each column could be, and why.

Only the first `SAMPLE` rows are looked at, and all rows only to count items and to see how long users stay. Whatever is
guessed stands in the recipe with its reason.
"""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

from pathlib import Path
from typing import cast

from zhiyin.data import checks, columns
from zhiyin.data.checks import DAY
from zhiyin.data.draft import Clock, Guess, recipe_text
from zhiyin.data.proposals import FEW, Proposal, key, propose
from zhiyin.data.readers import Loaded, connect, load, quoted, reading
from zhiyin.data.sources import MEMORY, Source, TimeUnit
from zhiyin.errors import DataError

__all__ = ["Guess", "inspect", "recipe_text"]

SAMPLE = 100_000

HOUR = 3_600_000
"""Milliseconds in an hour."""

NO_TIME = "none"
"""The name that says: there is no time column, the rows are in order."""

USERS = (
    "userid", "user", "uid", "useridx", "visitorid", "visitor", "customerid", "customer", "clientid", "client",
    "memberid", "member", "accountid", "account", "buyerid", "buyer", "reviewerid", "reviewer", "personid", "person",
    "listenerid", "readerid", "playerid", "viewerid", "deviceid", "sessionid", "session", "用户id", "用户", "用户编号",
    "会员id", "会员",
)  # fmt: skip
ITEMS = (
    "itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "sku", "asin", "parentasin",
    "articleid", "article", "bookid", "book", "isbn", "songid", "song", "trackid", "track", "artistid", "videoid",
    "video", "newsid", "news", "adid", "courseid", "course", "gameid", "game", "appid", "poiid", "poi", "venueid",
    "venue", "locationid", "businessid", "business", "listingid", "listing", "hotelid", "contentid", "content",
    "postid", "docid", "goodsid", "goods", "stockcode", "商品id", "商品", "物品id", "物品",
    "商品编号", "视频id", "视频", "文章id", "文章", "电影id", "电影", "歌曲id", "歌曲", "图书id", "图书",
)  # fmt: skip
TIMES = (
    "timestamp", "ts", "time", "datetime", "eventtime", "eventtimestamp", "createdat", "created", "timestampms",
    "timems", "unixtime", "unixreviewtime", "invoicedate", "orderdate", "purchasedate", "date", "day", "when",
    "时间戳", "时间", "日期", "播放时间", "观看时间", "点击时间", "浏览时间",
    "下单时间", "购买时间", "创建时间", "事件时间",
)  # fmt: skip
REQUEST = (
    "device", "devicetype", "platform", "os", "browser", "app", "country", "city", "region", "language", "locale",
    "channel", "page", "surface", "network", "store", "shop",
)  # fmt: skip
"""What is likely known when a request comes, before anything was chosen."""


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
    with connect(MEMORY) as connection:
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
        return _guess(log, tables, {"user": user, "item": item, "time": time}, time_unit)


def _guess(log: Loaded, tables: dict[str, Loaded], given: dict[str, str | None], unit: str | None) -> Guess:
    kinds = log.kinds(log.columns)
    found = _columns(log, tables, kinds, given)
    user, item, time = (found[side][0] for side in ("user", "item", "time"))
    why = {side: words for side, (_, words) in found.items()}
    if not time:
        unit, why["time_unit"] = "position", "the order of the rows is all that is known of time"
    elif unit is None:
        unit, why["time_unit"] = _unit(log, time, kinds[time])
    else:
        why["time_unit"] = "as given"
    features = propose(log, [name for name in log.columns if name not in (user, item, time)])
    context = tuple(p for p in features if p.use and key(p.column) in REQUEST)
    ids = {side: _table_id(log, found[side][0], table, side) for side, table in tables.items()}
    source = Source(
        log.path,
        items=tables["item"].path if "item" in tables else None,
        users=tables["user"].path if "user" in tables else None,
        user=user,
        item=item,
        time=time,
        time_unit=cast(TimeUnit, unit),
        item_id="" if ids.get("item") == item else ids.get("item", ""),
        user_id="" if ids.get("user") == user else ids.get("user", ""),
        columns=tuple(p.column for p in context),
    )
    events, items = _sizes(log, item, tables.get("item"))
    return Guess(
        source,
        why,
        user=_attributes(tables.get("user"), ids.get("user", "")),
        item=_attributes(tables.get("item"), ids.get("item", "")),
        context=context,
        left=tuple(p for p in features if p not in context),
        items=items,
        events=events,
        clock=_clock(log, user, checks.times(log, time, unit).sql) if unit != "position" else None,
    )


def _columns(
    log: Loaded, tables: dict[str, Loaded], kinds: dict[str, str], given: dict[str, str | None]
) -> dict[str, tuple[str, str]]:
    """The columns of "user", "item" and "time", each with the reason for it."""
    found: dict[str, tuple[str, str]] = {}
    for side, known in (("user", USERS), ("item", ITEMS), ("time", TIMES)):
        taken = {column for column, _ in found.values()} | {one for one in given.values() if one}
        free = [name for name in log.columns if name not in taken]
        choice = given[side]
        if choice == NO_TIME and choice not in log.columns:
            found[side] = ("", "there is none: the rows are taken to be in order")
        elif choice:
            found[side] = (choice, "as given")
        elif named := next((name for one in known for name in free if key(name) == one), None):
            found[side] = (named, "by its name")
        elif side == "time" and (clocks := [name for name in free if _is_clock(log, name, kinds[name])]):
            found[side] = (clocks[0], "by its values, which are times")
        elif side in tables and (shared := [name for name in free if _is_key(tables[side], name)]):
            found[side] = (shared[0], f"the {side} table has it too, with every value once")
    _add_by_elimination(log, kinds, found)
    for side in ("user", "item", "time"):
        if side not in found:
            raise _unknown(log, side)
    return found


def _add_by_elimination(log: Loaded, kinds: dict[str, str], found: dict[str, tuple[str, str]]) -> None:
    taken = {column for column, _ in found.values()}
    missing = [side for side in ("user", "item") if side not in found]
    ids = [name for name in log.columns if name not in taken and _is_id(log, name, kinds[name])]
    if len(missing) == 1 and len(ids) == 1:
        found[missing[0]] = (ids[0], "the only other column that looks like an id")


def _unknown(log: Loaded, side: str) -> DataError:
    what, example = {
        "user": ("the user's id", "user_id"),
        "item": ("the item's id", "item_id"),
        "time": ("the time of an event", "timestamp"),
    }[side]
    none = f" (--time {NO_TIME} if the rows are in order and have no times)" if side == "time" else ""
    return DataError(
        f"no column looks like {what}",
        where=str(log.path),
        expected=f"a name such as {example}; the columns are {', '.join(log.columns)}",
        remedy=f"Say which they are: --user COLUMN --item COLUMN --time COLUMN{none}.",
    )


def _table_id(log: Loaded, column: str, table: Loaded, side: str) -> str:
    """The id column of an item or user table: named as in the log, or the one that holds the log's ids."""
    if column in table.columns:
        return column
    wanted = f"select distinct {quoted(column)}::varchar as id from {log.table}"
    shares = {}
    for name in table.columns:
        if _is_key(table, name):
            there = f"select {quoted(name)}::varchar from {table.table}"
            shares[name] = log.one(f"select avg((id in ({there}))::int) from ({wanted})")[0] or 0.0
    best = max(shares, key=lambda name: shares[name], default="")
    if not best or shares[best] < 0.2:
        raise DataError(
            f"no column holds the {side} ids of the log's '{column}'",
            where=str(table.path),
            expected=f"a column '{column}' (there are {', '.join(table.columns)})",
            remedy=f"Rename the column with the {side}'s id to '{column}'.",
        )
    return best


def _attributes(table: Loaded | None, id: str) -> tuple[Proposal, ...]:
    return propose(table, [name for name in table.columns if name != id]) if table else ()


def _is_key(table: Loaded, name: str) -> bool:
    """Whether a table has the column, with a value in every row, each once."""
    if name not in table.columns:
        return False
    return bool(table.one(f"select count(distinct {quoted(name)}) = count(*) from {table.table}")[0])


def _is_id(log: Loaded, name: str, kind: str) -> bool:
    if kind not in (*columns.WHOLE, "VARCHAR", "UUID") or key(name) in REQUEST:
        return False
    distinct, rows = log.one(f"select count(distinct {quoted(name)}), count(*) from {log.table}")
    return bool(distinct > 1 and (distinct > FEW or rows <= 10 * FEW))


def _is_clock(log: Loaded, name: str, kind: str) -> bool:
    """Whether nearly all values are times: those that are not are told when the column is read as such."""
    if kind == "VARCHAR":
        times = f"avg((try_cast({quoted(name)} as timestamptz) is not null)::int)"
        return bool(log.one(f"select coalesce({times}, 0) > 0.9 from {log.table}")[0])
    try:
        return _unit(log, name, kind)[0] != "position"
    except DataError:
        return False


def _unit(log: Loaded, name: str, kind: str) -> tuple[str, str]:
    """The unit of a time column and the reason. Raises `DataError` for what is no time."""
    column = quoted(name)
    if kind in columns.CLOCKS:
        return "iso", "dates or timestamps"
    if kind not in columns.WHOLE | columns.FRACTIONS and not kind.startswith("DECIMAL"):
        checks.times(log, name, "iso")
        return "iso", "dates or timestamps as text; UTC where they name no zone"
    low, high = log.one(f"select min({column}::double), max({column}::double) from {log.table}")
    unit = checks.likely_unit(low, high) if low is not None else None
    if unit:
        span = f"{checks.day(low, unit)} to {checks.day(high, unit)}"
        return unit, f"{checks.NAMES[unit]} since 1970, by their size: {span}"
    return "position", "too small for times since 1970: they only say what came first"


def _clock(log: Loaded, user: str, time: str) -> Clock:
    times = f"select {quoted(user)} as u, try({time}) as t from {_whole(log)}"
    with reading(log.path):
        spans = log.one(
            "select min(early) <> max(late), min(first), max(last), median(last - first) filter (events > 2) from "
            f"(select min(t % {DAY} // {HOUR}) as early, max(t % {DAY} // {HOUR}) as late, "
            f"min(t) as first, max(t) as last, count(*) as events from ({times}) group by u)"
        )
    hours, first, last, middle = spans
    return Clock(hours, (last - first) / DAY, middle is not None and middle < 0.05 * (last - first))


def _sizes(log: Loaded, item: str, table: Loaded | None) -> tuple[int, int]:
    """How many events and about how many items there are."""
    with reading(log.path):
        events, items = log.one(f"select count(*), approx_count_distinct({quoted(item)}) from {_whole(log)}")
    if events <= SAMPLE:
        items = log.one(f"select count(distinct {quoted(item)}) from {log.table}")[0]
    if table:
        with reading(table.path):
            items = max(items, table.one(f"select count(*) from {_whole(table)}")[0])
    return int(events), int(items)


def _whole(loaded: Loaded) -> str:
    return loaded.scan if loaded.count() == SAMPLE else loaded.table
