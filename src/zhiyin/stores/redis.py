"""The store on Redis: one server, one found by Sentinels, or a Cluster. For many replicas of the service.

Seven kinds of keys. An id stands in them as 32 hexadecimal digits, so whatever its characters are, no key lies outside
the prefix; a user's digits are the key's hash tag, so a Cluster keeps all that is known of a user in one place:

    PREFIX{digits}e  a list of the user's events, oldest first: time (8 bytes) · name (17) · item, values, id
    PREFIX{digits}i  a set of the names of those among them that have an id
    PREFIX{digits}p  the profile
    PREFIXdigits:c   the card of an item
    PREFIX{items}n   a sorted set of changed items, 16 bytes each (others where one was blocked or unblocked), by the
                     number of their last change
    PREFIX{items}v   a hash of the same: item, time, values, or whether it is blocked
    PREFIX{items}f   the highest number of a change that was pruned

A change's number is the server's clock in microseconds, or one more than the last: also where a failover lost the last
changes, no number is given twice. The log of changes lies on one node of a Cluster.

An append is one call of a script for each user: that user's part is kept whole or not at all, but an append that fails
may have kept the part of one user and not of another. To send the same events again is always safe. As durable as the
server is set to be: `appendonly yes` with `appendfsync always` loses nothing that was said to be kept, unless a replica
takes over that had not heard of it; `replicas` waits until it has.
"""

import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from zhiyin.errors import SpecError, StoreError
from zhiyin.stores.base import Card, Change, Event, Page, Profile, UserState
from zhiyin.stores.hot import HotCards
from zhiyin.stores.records import (
    change_key,
    checked_cards,
    checked_changes,
    checked_events,
    checked_profiles,
    decode,
    decode_cards,
    digest,
    encode,
    identity,
    packed_change,
    unpacked_change,
)

with suppress(ModuleNotFoundError):  # `open` says how to get it
    import redis
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode, RedisCluster
    from redis.exceptions import (
        AuthenticationError,
        BusyLoadingError,
        ClusterDownError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisClusterException,
        RedisError,
    )
    from redis.retry import Retry
    from redis.sentinel import MasterNotFoundError, Sentinel

_BIAS = 1 << 63
_HEAD = struct.Struct(">QB16s")
_DAY = 86_400_000
_SET_AT_ONCE = 500
"""Cards or profiles in one command: a server does nothing else meanwhile."""

Command = tuple[Any, ...]

APPEND = """
local events, ids, keep, ttl, awaited = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local call, unpack_time, sub, byte = redis.call, struct.unpack, string.sub, string.byte
-- The newest events, read from the list as far as needed, lie at tail[first] .. tail[last]; from tail[changed] on they
-- are not as in the list. Of the list, `rest` were not read, `read` were, and `dropped` go from its old end.
local tail, first, last, changed = {}, 1, 0, 1
local rest, read, dropped, chunk, new = call('LLEN', events), 0, 0, 1, 0
local named = call('EXISTS', ids) == 1

local function read_more()
  local from = math.max(dropped, dropped + rest - chunk)
  local more = call('LRANGE', events, from, dropped + rest - 1)
  for at = #more, 1, -1 do
    first = first - 1
    tail[first] = more[at]
  end
  rest, read, chunk = rest - #more, read + #more, math.min(4 * chunk, 256)
end

local function drop_oldest()
  local oldest
  if rest > 0 then
    if named then oldest = call('LINDEX', events, dropped) end
    rest, dropped = rest - 1, dropped + 1
  else
    oldest = tail[first]
    if first < changed then read, dropped = read - 1, dropped + 1 else changed = changed + 1 end
    tail[first] = nil
    first = first + 1
  end
  if named and byte(oldest, 9) == 1 then call('SREM', ids, sub(oldest, 9, 25)) end
end

local function not_after(event, high, low)
  local other_high, other_low = unpack_time('>I4I4', event)
  return other_high < high or (other_high == high and other_low <= low)
end

local function before(event, high, low)
  return not_after(event, high, low) and sub(event, 1, 8) ~= struct.pack('>I4I4', high, low)
end

-- Where an event of this time goes: behind all that are not after it.
local function place_of(high, low)
  while rest > 0 and (first > last or not before(tail[first], high, low)) do read_more() end
  if first > last or not_after(tail[last], high, low) then return last + 1 end
  local from, to = first, last
  while from < to do
    local middle = math.floor((from + to) / 2)
    if not_after(tail[middle], high, low) then from = middle + 1 else to = middle end
  end
  return from
end

local function is_known(event, name, has_id, place)
  if has_id then return named and call('SISMEMBER', ids, name) == 1 end
  local at, time = place - 1, sub(event, 1, 8)
  while at >= first and sub(tail[at], 1, 8) == time do
    if sub(tail[at], 9, 25) == name then return true end
    at = at - 1
  end
  return false
end

for argument = 4, #ARGV do
  local event = ARGV[argument]
  local name, has_id = sub(event, 9, 25), byte(event, 9) == 1
  local place = place_of(unpack_time('>I4I4', event))
  if not is_known(event, name, has_id, place) and (place > first or last - first + 1 < keep) then
    for one = last, place, -1 do tail[one + 1] = tail[one] end
    tail[place], last, changed, new = event, last + 1, math.min(changed, place), new + 1
    if has_id then
      call('SADD', ids, name)
      named = true
    end
    while rest + last - first + 1 > keep do drop_oldest() end
  end
end

local stale = read - (changed - first)
if dropped > 0 or stale > 0 then call('LTRIM', events, dropped, -stale - 1) end
for from = changed, last, 4000 do call('RPUSH', events, unpack(tail, from, math.min(from + 3999, last))) end
if ttl > 0 and new > 0 then
  for _, key in ipairs(KEYS) do call('PEXPIRE', key, ttl) end
end
if new == 0 and awaited then  -- write what is there, or WAIT, which is about this connection's writes, has none
  call('RPUSH', events, call('LINDEX', events, -1))
  call('LTRIM', events, 0, -2)
end
return new
"""
"""KEYS: a user's events, ids and profile. ARGV: keep, ttl in ms (0: none), 1 where replicas are waited for, events.
Returns how many were kept.

Each event is put in its place in turn, as if it had come alone. What usually comes, events newer than all there are,
reads one event of the list and pushes."""

CHANGE = """
local clock, last = redis.call('TIME'), redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local pruned = tonumber(redis.call('GET', KEYS[3]) or 0)
local number = math.max(clock[1] * 1000000 + clock[2], tonumber(last[2] or 0) + 1, pruned + 1)
for argument = 1, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], string.format('%.0f', number), ARGV[argument])
  redis.call('HSET', KEYS[2], ARGV[argument], ARGV[argument + 1])
  number = number + 1
end
"""
"""KEYS: the numbers and the values of changes, and what was pruned. ARGV: for each change the item's 16 bytes, and what
is kept."""

CHANGES = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for at = 1, #found, 2 do found[at] = redis.call('HGET', KEYS[2], found[at]) end
found[#found + 1] = redis.call('GET', KEYS[3]) or '0'
return found
"""
"""KEYS: the same. ARGV: a number, and how many at most. Returns value, number, value, number, … of what came after, and
what was pruned."""

PRUNE = """
local pruned, gone = tonumber(redis.call('GET', KEYS[3]) or 0), 0
for at = 1, #ARGV, 2 do
  local number = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if number and tonumber(number) == tonumber(ARGV[at + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[at])
    redis.call('HDEL', KEYS[2], ARGV[at])
    pruned, gone = math.max(pruned, tonumber(number)), gone + 1
  end
end
if gone > 0 then redis.call('SET', KEYS[3], string.format('%.0f', pruned)) end
return gone
"""
"""KEYS: the same. ARGV: for each change the item's 16 bytes, and its number. Returns how many went."""

_SCRIPTS = {sha1(one.encode(), usedforsecurity=False).hexdigest(): one for one in (APPEND, CHANGE, CHANGES, PRUNE)}
_APPEND, _CHANGE, _CHANGES, _PRUNE = _SCRIPTS


@dataclass(frozen=True, slots=True)
class Redis:
    """Where the server is, how to be let in, and what is kept.

    `cluster`: some nodes of a Cluster, or `sentinels`: some Sentinels that know the `service`, each as "host:port";
    then `host` and `port` are not used. A password comes from the environment variable `password_env` or from the file
    `password_file`, read when the store is opened. `ca`: what signed the servers' certificates, where the system does
    not know it; `certificate` and `key`: what the server wants to see of us. `ttl_days`: after so many days without a
    write a user is forgotten; 0: never. `card_cache`: cards that stay in this process, each up to `card_age` after it
    was read; what another process puts is seen then. `replicas`: an append, and a change of an item, is said to be kept
    only when so many replicas of its master have it, too. Times are in seconds.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    cluster: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()
    service: str = ""
    username: str = ""
    password_env: str = ""
    password_file: Path | None = None
    sentinel_password_env: str = ""
    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    prefix: str = "zhiyin:"
    keep: int = 1000
    ttl_days: float = 0.0
    connect_timeout: float = 1.0
    timeout: float = 2.0
    card_cache: int = 50_000
    card_age: float = 1.0
    replicas: int = 0

    def __post_init__(self) -> None:
        if self.keep < 1 or not 0 <= self.ttl_days < 1e6 or not 0 <= self.db < 2**31 or not 0 < self.port < 65536:
            raise SpecError(
                f"keep = {self.keep}, ttl_days = {self.ttl_days}, db = {self.db}, port = {self.port}",
                expected="keep ≥ 1, ttl_days ≥ 0, db ≥ 0 and a port",
            )
        if not (0 < self.connect_timeout < 1e6 and 0 < self.timeout < 1e6):
            raise SpecError(f"connect_timeout = {self.connect_timeout}, timeout = {self.timeout}", expected="seconds")
        if self.replicas < 0:
            raise SpecError(f"{self.replicas}", where=".replicas", expected="at least 0")
        if self.card_cache < 0 or not 0 < self.card_age < 1e6:
            raise SpecError(
                f"card_cache = {self.card_cache}, card_age = {self.card_age}", expected="card_cache ≥ 0, seconds > 0"
            )
        if not self.prefix.isprintable() or "{" in self.prefix or "}" in self.prefix:
            raise SpecError(f"{self.prefix!r}", where=".prefix", expected="printable text without { and }")
        if self.cluster and (self.sentinels or self.db):
            raise SpecError("a Cluster has no Sentinels and no db but 0", where=".cluster")
        if bool(self.sentinels) != bool(self.service):
            raise SpecError("sentinels and service go together", where=".service", expected="both or neither")
        if self.password_env and self.password_file is not None:
            raise SpecError("a password from two places", where=".password_file", expected="password_env or this")
        if not self.tls and any((self.ca, self.certificate, self.key)):
            raise SpecError("certificates without TLS", where=".tls", expected="tls = true beside ca, certificate, key")
        _ = _addresses(self.cluster, ".cluster"), _addresses(self.sentinels, ".sentinels")

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.cluster:
            return f"Redis Cluster at {', '.join(self.cluster)}"
        if self.sentinels:
            return f"Redis '{self.service}' of the Sentinels at {', '.join(self.sentinels)}"
        return f"Redis at {self.host}:{self.port}"

    def open(self) -> "RedisStore":
        if "redis" not in globals():
            raise StoreError("the package 'redis' is not installed", remedy="pip install 'zhiyin[redis]'")
        return RedisStore(self)


class RedisStore:
    """A pool of connections: each call takes one (of each node that it asks), and makes one round trip."""

    def __init__(self, spec: Redis) -> None:
        self._spec = spec
        self._ttl = round(spec.ttl_days * _DAY)
        self._hot = HotCards(spec.card_cache, spec.card_age)
        self._idle = threading.Condition()
        self._calls = 0
        self._closed = False
        with self._call():
            self._client: Any = connected(spec)
            self._client.ping()

    def append(self, events: Sequence[Event]) -> int:
        parts: dict[str, list[bytes]] = {}
        for event in checked_events(events):
            parts.setdefault(event.user, []).append(_packed(event))
        words = (self._spec.keep, self._ttl, int(self._spec.replicas > 0))
        counts = self._keep([("EVALSHA", _APPEND, 3, *self._keys(user), *words, *parts[user]) for user in parts])
        return sum(counts)

    def read(self, users: Sequence[str], limit: int) -> list[UserState]:
        count = min(limit, self._spec.keep)
        asked: list[Command] = []
        for user in users:
            events, _, profile = self._keys(user)
            asked += [("GET", profile), ("LRANGE", events, -count, -1) if count > 0 else ("LRANGE", events, 1, 0)]
        found = self._send(asked)
        return [_state(*one) for one in zip(users, found[::2], found[1::2], strict=True)]

    def put_profiles(self, profiles: Mapping[str, Profile]) -> None:
        checked = checked_profiles(profiles)
        if not self._ttl:
            self._put({self._keys(user)[2]: encode(profile) for user, profile in checked.items()})
            return
        commands: list[Command] = []
        for user, profile in checked.items():
            events, ids, key = self._keys(user)
            commands.append(("SET", key, encode(profile), "PX", self._ttl))
            commands += [("PEXPIRE", events, self._ttl), ("PEXPIRE", ids, self._ttl)]
        self._send(commands)

    def cards(self, items: Sequence[str], fields: Sequence[str] | None = None) -> list[Card | None]:
        with self._call():
            packed = self._hot.cards(items, self._fetch)
        return decode_cards(packed, fields)

    def _fetch(self, items: list[str]) -> list[bytes | None]:
        keys = [self._card(item) for item in items]
        if self._spec.cluster:
            return self._send([("GET", key) for key in keys])
        found: list[bytes | None] = self._send([("MGET", *keys)])[0] if keys else self._send([])
        return found

    def put_cards(self, cards: Mapping[str, Card]) -> None:
        checked = checked_cards(cards)
        try:
            self._put({self._card(item): encode(card) for item, card in checked.items()})
        finally:
            self._hot.forget(checked)

    def drop_cards(self, items: Sequence[str]) -> None:
        try:
            self._send([("DEL", self._card(item)) for item in items])
        finally:
            self._hot.forget(items)

    def put_changes(self, changes: Sequence[Change]) -> None:
        packed: list[bytes] = []
        for change in checked_changes(changes):
            packed += [change_key(change), packed_change(change)]
        if packed:
            self._keep([("EVALSHA", _CHANGE, 3, *self._log(), *packed)])

    def changes(self, after: int, limit: int) -> Page:
        *found, pruned = self._send([("EVALSHA", _CHANGES, 3, *self._log(), after, max(limit, 0))])[0]
        kept = zip(found[::2], found[1::2], strict=True)
        changes = tuple(unpacked_change(packed, int(number)) for packed, number in kept)
        self._hot.forget(change.item for change in changes)  # its card was put, too
        return Page(changes, int(pruned))

    def prune_changes(self, changes: Sequence[Change]) -> int:
        told = [word for change in changes for word in (change_key(change), change.number)]
        return int(self._send([("EVALSHA", _PRUNE, 3, *self._log(), *told)])[0]) if told else 0

    def close(self) -> None:
        """Waits for calls under way, each of which ends by its timeout at the latest."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._calls)
        self._client.close()

    def _keys(self, user: str) -> tuple[str, str, str]:
        """Of a user's events, ids and profile."""
        stem = f"{self._spec.prefix}{{{digest(user).hex()}}}"
        return f"{stem}e", f"{stem}i", f"{stem}p"

    def _log(self) -> tuple[str, str, str]:
        """Of the numbers and the values of changes, and of what was pruned."""
        stem = f"{self._spec.prefix}{{items}}"
        return f"{stem}n", f"{stem}v", f"{stem}f"

    def _card(self, item: str) -> str:
        return f"{self._spec.prefix}{digest(item).hex()}:c"

    def _put(self, values: Mapping[str, bytes]) -> None:
        if self._spec.cluster:
            self._send([("SET", *pair) for pair in values.items()])
            return
        flat = [word for pair in values.items() for word in pair]
        step = 2 * _SET_AT_ONCE
        self._send([("MSET", *flat[start : start + step]) for start in range(0, len(flat), step)])

    def _keep(self, scripts: list[Command]) -> list[Any]:
        """What the scripts answer, once as many replicas as were asked for have what they wrote. Raises `StoreError`
        where they are too few."""
        wanted, most = self._spec.replicas, round(500 * self._spec.timeout)
        with self._call():
            keys = {self._node(script[3]): script[3] for script in scripts} if wanted else {}
        answers = self._send([*scripts, *(("WAIT", wanted, most, key) for key in keys.values())])
        heard = min(answers[len(scripts) :], default=wanted)
        if heard < wanted:
            raise StoreError(
                f"kept by the master, but {heard} of the {wanted} replicas that should have it do after {most} ms",
                where=self._spec.place,
                remedy="Look at the replicas, or lower store.replicas; then send it again: it counts once.",
            )
        return answers[: len(scripts)]

    def _node(self, key: str) -> str:
        """Which node of a Cluster has the key; the one server."""
        node = self._client.get_node_from_key(key) if self._spec.cluster else None
        return "" if node is None else str(node.name)

    def _send(self, commands: list[Command]) -> list[Any]:
        """The answers, in one round trip; one more where a server does not know the script yet."""
        with self._call():
            answers = self._answers(commands)
            unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                nodes = {self._node(commands[at][3]) for at in unknown}
                unknown += [at for at, one in enumerate(commands) if one[0] == "WAIT" and self._node(one[3]) in nodes]
                again = self._answers([_whole(commands[at]) for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return answers

    def _answers(self, commands: list[Command]) -> list[Any]:
        if not commands:
            return []
        pipeline = self._client.pipeline(transaction=False)
        for told in commands:
            key = told[3] if told[0] in ("EVAL", "EVALSHA", "WAIT") else told[1]
            command = told[:3] if told[0] == "WAIT" else told  # whose key only says which node is meant
            if self._spec.cluster:
                node = self._client.get_node_from_key(key)  # said here, or the client asks a server where a script goes
                pipeline.execute_command(*command, **({} if node is None else {"target_nodes": node}))
            else:
                pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._idle:
            if self._closed:
                raise StoreError("the store is closed", where=self._spec.place)
            self._calls += 1
        try:
            with explained(self._spec):
                yield
        finally:
            with self._idle:
                self._calls -= 1
                self._idle.notify_all()


def _whole(command: Command) -> Command:
    """A command for a server that does not know the script."""
    return ("EVAL", _SCRIPTS[command[1]], *command[2:]) if command[0] == "EVALSHA" else command


def _packed(event: Event) -> bytes:
    head = _HEAD.pack(event.time + _BIAS, bool(event.id), digest(identity(event)))
    return head + encode((event.item, event.values, event.id))


def _state(user: str, profile: bytes | None, packed: Sequence[bytes]) -> UserState:
    events = []
    for one in packed:
        item, values, id = decode(one[_HEAD.size :])
        events.append(Event(user, item, int.from_bytes(one[:8]) - _BIAS, values, id))
    return UserState(None if profile is None else decode(profile), tuple(events))


def connected(spec: Redis) -> Any:
    """A client. What a connection is lost of is asked once more, on a new one: every call may be made twice."""
    options: dict[str, Any] = {
        "username": spec.username or None,
        "password": _password(spec),
        "socket_timeout": spec.timeout,
        "socket_connect_timeout": spec.connect_timeout,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
    }
    tls = _tls(spec)
    if spec.cluster:
        node: Any = ClusterNode
        nodes = [node(host, port) for host, port in _addresses(spec.cluster, ".cluster")]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options, **tls)
    if spec.sentinels:
        own = {**options, **tls, "username": None, "password": _from_environment(spec.sentinel_password_env, spec)}
        manager: Any = Sentinel
        sentinels = manager(_addresses(spec.sentinels, ".sentinels"), sentinel_kwargs=own)
        return sentinels.master_for(spec.service, db=spec.db, **options, **tls)
    return redis.Redis(host=spec.host, port=spec.port, db=spec.db, **options, **tls)


def _tls(spec: Redis) -> dict[str, Any]:
    if not spec.tls:
        return {}
    files = {"ssl_ca_certs": spec.ca, "ssl_certfile": spec.certificate, "ssl_keyfile": spec.key}
    given = {name: path for name, path in files.items() if path is not None}
    for path in given.values():
        if not os.access(path, os.R_OK):
            raise StoreError(
                f"the file {path} cannot be read", where=spec.place, remedy="Set store.ca, certificate and key."
            )
    return {"ssl": True, **{name: str(path) for name, path in given.items()}}


def _password(spec: Redis) -> str | None:
    if spec.password_file is None:
        return _from_environment(spec.password_env, spec)
    try:
        return spec.password_file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise StoreError(
            f"the password file {spec.password_file} cannot be read ({why})",
            where=spec.place,
            remedy="Put the password there, or set store.password_file to where it is.",
        ) from None


def _from_environment(name: str, spec: Redis) -> str | None:
    if name and name not in os.environ:
        raise StoreError(
            f"the environment variable {name} is not set", where=spec.place, remedy="Put the password into it."
        )
    return os.environ[name] if name else None


def _addresses(words: Sequence[str], where: str) -> list[tuple[str, int]]:
    found = []
    for word in words:
        host, _, port = word.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SpecError(f"{word!r}", where=where, expected='"host:port" each')
        found.append((host.strip("[]"), int(port)))
    return found


@contextmanager
def explained(spec: Redis) -> Iterator[None]:
    """A client's error becomes a `StoreError`: what it means, and the way out. The client's words hold no password."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        what, remedy = _meaning(error, spec)
        raise StoreError(what, where=spec.place, remedy=remedy) from None


def _meaning(error: Exception, spec: Redis) -> tuple[str, str]:
    said = str(error)
    if isinstance(error, AuthenticationError | NoPermissionError) or "NOAUTH" in said or "WRONGPASS" in said:
        return (
            f"refuses us ({said})",
            "Set store.username, and password_env or password_file; the user needs GET, SET, MGET, MSET, DEL, LRANGE, "
            "PING, EVAL and EVALSHA, and what the scripts call, on keys with the prefix.",
        )
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in said:
        return "out of memory", "Raise the server's maxmemory, or keep less: store.keep, store.ttl_days."
    if isinstance(error, ReadOnlyError):
        return "a replica, which cannot be written to", "Name the master, or set store.sentinels and store.service."
    if isinstance(error, BusyLoadingError):
        return "still reads its data from disk", "Try again when it has."
    if isinstance(error, MasterNotFoundError):
        return f"no Sentinel names a master ({said})", "Look at the Sentinels, store.sentinels and store.service."
    if isinstance(error, redis.TimeoutError):
        if "connecting" in said:
            return f"no connection within {spec.connect_timeout:g} s", "Look at the network, or set [store] host."
        return (
            f"no answer within {spec.timeout:g} s",
            "Look at the server and the network, or raise store.timeout; a write may or may not have been kept, and "
            "may be sent again.",
        )
    if isinstance(error, ClusterDownError | RedisClusterException):
        return f"the Cluster is down or in part ({said})", "Look at its nodes (redis-cli --cluster check); then go on."
    if isinstance(error, redis.ConnectionError | OSError):
        certificates = ", and look at store.ca, certificate and key" if spec.tls else ""
        return f"cannot be reached ({said})", f"Start the server, or set [store] to where it is{certificates}."
    return f"answered {said}", "Look at the server; a write that was refused was not kept."


EXAMPLES = (Redis(keep=20), Redis(cluster=("127.0.0.1:7000",), keep=20))
