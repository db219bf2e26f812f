"""Write a small log with a known taste in it: events.csv, items.csv and users.csv, ready for `zhiyin init`.

python synthetic_log.py FOLDER
"""

import sys
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from zhiyin.data import worlds


def write(folder: Path, users: int = 1500, items: int = 300, events_per_user: int = 6) -> None:
    """Ten kinds of items; a user likes two of them, and what is popular among them."""
    data = worlds.tastes(users, items, groups=10, events_per_user=events_per_user, seed=1, interests=2).data
    log, user_ids, item_ids = data.events, range(users), range(1000, 1000 + items)
    events = {
        "user_id": log.users,
        "item_id": [item_ids[row] for row in log.items],
        "timestamp": log.times // 1000,
        "device": log.columns["device"],
    }
    cards = {name: data.item_table[name] for name in ("title", "category")}
    prices = data.item_table["price"].round(2)
    tags = ["|".join(one) for one in data.item_table["tags"]]
    profiles = {name: data.user_table[name] for name in ("country", "age")}
    folder.mkdir(parents=True, exist_ok=True)
    csv.write_csv(pa.table(events), folder / "events.csv")
    csv.write_csv(pa.table({"item_id": list(item_ids), **cards, "price": prices, "tags": tags}), folder / "items.csv")
    csv.write_csv(pa.table({"user_id": list(user_ids), **profiles}), folder / "users.csv")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
