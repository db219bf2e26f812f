"""What only a store on a server can do, and what can go wrong with one. Every server here is a real one."""

import logging
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from zhiyin.errors import SpecError, StoreError
from zhiyin.recipe import Recipe
from zhiyin.stores.base import Change, Event, StoreSpec
from zhiyin.stores.records import digest
from zhiyin.stores.redis import Redis

if TYPE_CHECKING:
    from conftest import RedisCluster, RedisServer, Turns

ALLOWED = [
    *("+ping", "+get", "+set", "+mget", "+mset", "+eval", "+evalsha", "+pexpire", "+exists"),
    *("+llen", "+lrange", "+lindex", "+ltrim", "+rpush", "+sismember", "+sadd", "+srem"),
    *("+del", "+time", "+zadd", "+zrevrange", "+zrangebyscore", "+hset", "+hget"),
    *("+zscore", "+zrem", "+hdel"),
]
Placed = Callable[[StoreSpec, Path], StoreSpec]
VARIABLE = "ZHIYIN_TEST_PASSWORD"
WORD = "sésame-知-42"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, redis_server: "RedisServer") -> Iterator["RedisServer"]:
    """A server with a password, and a user `app` who may do what the store needs, on its prefix, and no more."""
    server = type(redis_server)(tmp_path_factory.mktemp("guarded"), "--requirepass", WORD[::-1])
    with server.client(password=WORD[::-1]) as admin:
        admin.execute_command("ACL SETUSER", "app", "on", f">{WORD}", "~zhiyin:*", "-@all", *ALLOWED)
    yield server
    server.kill()


@pytest.fixture
def fresh(tmp_path: Path, redis_server: "RedisServer") -> Iterator[Callable[..., "RedisServer"]]:
    """fresh(*words): a server of this test's own."""
    started: list[RedisServer] = []

    def start(*words: str) -> "RedisServer":
        folder = tmp_path / f"redis-{len(started)}"
        folder.mkdir()
        started.append(type(redis_server)(folder, *words))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.mark.parametrize(("example", "nodes"), [(Redis(), 1), (Redis(cluster=("any:1",)), 3)], ids=["one", "cluster"])
def test_each_call_is_one_round_trip(
    example: Redis, nodes: int, placed: Placed, tmp_path: Path, turns: "Turns"
) -> None:
    store = placed(example, tmp_path).open()
    users, items = [f"u{at}" for at in range(100)], [f"i{at}" for at in range(200)]
    events = [Event(user, f"i{at}", at, id=f"{at}" if at % 2 else "") for user in users for at in range(5)]
    for _ in range(2):  # every node is connected to and knows the script
        store.append([replace(event, user=f"{event.user}+") for event in events])
    assert turns.of(lambda: store.append(events)) == (1, nodes)
    assert turns.of(lambda: store.put_cards({item: {"title": item} for item in items})) == (1, nodes)
    assert turns.of(lambda: store.put_profiles({user: {"age": 1} for user in users})) == (1, nodes)
    assert turns.of(lambda: store.read(users, 50)) == (1, nodes)
    assert turns.of(lambda: store.cards(items)) == (1, nodes)
    store.changes(0, 1)
    store.put_changes([Change("i", 1, {})])
    assert turns.of(lambda: store.put_changes([Change(item, 1, {"title": item}) for item in items])) == (1, 1)
    kept = store.changes(0, 1000).changes
    store.prune_changes(kept[:1])
    assert turns.of(lambda: store.changes(0, 1000)) == (1, 1)
    assert turns.of(lambda: store.prune_changes(kept)) == (1, 1)
    assert turns.of(lambda: store.drop_cards(items[:0])) == (0, 0)
    assert [len(state.events) for state in store.read(users, 50)] == [5] * 100
    assert store.cards(items) == [{"title": item} for item in items]
    store.close()


ODD = ["\r\n", "*", "{}", "}{", "a:b", "zhiyin:", "\x00", "知音", "u\r\nFLUSHALL\r\n", "x" * 5000]


@pytest.mark.parametrize("example", [Redis(), Redis(cluster=("any:1",))], ids=["one", "cluster"])
def test_no_id_touches_a_key_outside_the_prefix(
    example: Redis,
    placed: Placed,
    tmp_path: Path,
    redis_server: "RedisServer",
    redis_cluster: "RedisCluster",
) -> None:
    nodes = [node.client() for node in (redis_cluster.nodes if example.cluster else [redis_server])]
    before = [set(node.keys()) for node in nodes]
    spec = cast(Redis, placed(example, tmp_path))
    store = spec.open()
    for id in ODD:
        store.append([Event(id, id, 1, {"a": id}), Event(id, id, 1, id=id)])
        store.put_profiles({id: {"name": id}})
        store.put_cards({id: {"title": id}})
        store.put_changes([Change(id, 1, {"title": id})])
    assert len(store.changes(0, 99).changes) == len(ODD)
    assert store.prune_changes(store.changes(0, 1).changes) == 1
    assert [len(state.events) for state in store.read(ODD, 9)] == [2] * len(ODD)
    assert store.cards(ODD) == [{"title": id} for id in ODD]
    made: Any = {key for node, there in zip(nodes, before, strict=True) for key in set(node.keys()) - there}
    shape = rf"{re.escape(spec.prefix)}(\{{[0-9a-f]{{32}}\}}[eip]|[0-9a-f]{{32}}:c|\{{items\}}[nvf])".encode()
    assert len(made) == 4 * len(ODD) + 3
    assert all(re.fullmatch(shape, key) for key in made)
    for node in nodes:
        node.close()
    store.close()


def test_a_user_is_forgotten_so_many_days_after_the_last_write(
    placed: Placed, tmp_path: Path, redis_server: "RedisServer"
) -> None:
    spec = replace(cast(Redis, placed(Redis(), tmp_path)), ttl_days=2.0)
    store, day = spec.open(), 86_400_000
    store.append([Event("u", "i", 1, id="e")])
    store.put_profiles({"u": {"age": 1}})
    store.put_cards({"i": {"title": "t"}})
    keys = [f"{spec.prefix}{{{digest('u').hex()}}}{kind}" for kind in "eip"]
    with redis_server.client() as client:

        def left() -> list[int]:
            return [cast(int, client.pttl(key)) for key in keys]

        def age() -> None:
            for key in keys:
                client.pexpire(key, day)

        assert all(1.99 * day < ms <= 2 * day for ms in left())
        age()
        store.append([Event("u", "i", 1, id="e")])
        assert all(ms <= day for ms in left()), "an event that is there already is no write"
        store.append([Event("u", "j", 2)])
        assert all(1.99 * day < ms for ms in left())
        age()
        store.put_profiles({"u": {"age": 2}})
        assert all(1.99 * day < ms for ms in left())
        assert client.pttl(f"{spec.prefix}{digest('i').hex()}:c") == -1
    store.close()
    forever = replace(spec, ttl_days=0.0, prefix=spec.prefix + "for ever:").open()
    forever.append([Event("u", "i", 1)])
    with redis_server.client() as client:
        assert client.pttl(f"{spec.prefix}for ever:{{{digest('u').hex()}}}e") == -1
    forever.close()


def test_what_is_dropped_leaves_nothing_behind(placed: Placed, tmp_path: Path, redis_server: "RedisServer") -> None:
    spec = replace(cast(Redis, placed(Redis(), tmp_path)), keep=5)
    store = spec.open()
    for at in range(30):
        store.append([Event("u", "i", at, id=f"e{at}"), Event("u", "i", at)])
    store.append([Event("u", "i", 100 + at, id=f"f{at}") for at in range(12)])
    stem = f"{spec.prefix}{{{digest('u').hex()}}}"
    with redis_server.client() as client:
        assert (client.llen(f"{stem}e"), client.scard(f"{stem}i")) == (5, 5)
    store.close()


def test_no_number_of_a_change_is_given_twice_even_where_the_log_was_lost(
    placed: Placed, tmp_path: Path, redis_server: "RedisServer"
) -> None:
    """As after a failover to a replica that had not yet heard of the last changes; nor where the clock stands still."""
    spec = cast(Redis, placed(Redis(), tmp_path))
    store = spec.open()
    store.put_changes([Change(f"i{at}", 1, {}) for at in range(3000)])
    numbers = [change.number for change in store.changes(0, 5000).changes]
    assert len(set(numbers)) == 3000
    with redis_server.client() as client:
        client.zremrangebyrank(f"{spec.prefix}{{items}}n", 1000, -1)
        store.put_changes([Change("new", 1, {})])
        assert [change.item for change in store.changes(numbers[-1], 9).changes] == ["new"]
        ahead = 2**52
        client.zadd(f"{spec.prefix}{{items}}n", {digest("new"): ahead})
    store.put_changes([Change("newer", 1, {}), Change("newest", 1, {})])
    assert [change.number for change in store.changes(ahead, 9).changes] == [ahead + 1, ahead + 2]
    store.close()


def test_thousands_of_events_of_one_user_in_any_order(placed: Placed, tmp_path: Path) -> None:
    """More than a script may push at once; and placed by time, whatever the order they come in."""
    store = replace(cast(Redis, placed(Redis(), tmp_path)), keep=4500, timeout=60.0).open()
    times = [(at * 7919) % 5003 for at in range(5000)]
    store.append([Event("u", "i", at) for at in times[:100]])
    store.append([Event("u", "i", at) for at in times[100:]])
    assert [event.time for event in store.read(["u"], 10_000)[0].events] == sorted(times)[-4500:]
    store.close()


def test_a_password_comes_from_the_environment_or_a_file_and_is_never_told(
    guarded: "RedisServer",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(VARIABLE, WORD)
    (tmp_path / "password").write_text(WORD + "\n")
    spec = Redis(port=guarded.port, username="app", password_env=VARIABLE)
    for one in (spec, replace(spec, password_env="", password_file=tmp_path / "password")):
        store = one.open()
        assert store.append([Event("u", str(one.password_file), 1, id="e" if one.password_file else "")]) == 1
        store.put_profiles({"u": {"age": 3}})
        store.put_cards({"i": {"title": "t"}})
        assert (store.read(["u"], 9)[0].profile, store.cards(["i"])) == ({"age": 3}, [{"title": "t"}])
        store.put_changes([Change("i", 1, {}), Change("j", 1, None)])
        assert [change.item for change in store.changes(0, 9).changes] == ["i", "j"]
        assert store.prune_changes(store.changes(0, 1).changes) == 1
        store.drop_cards(["i"])
        assert store.cards(["i"]) == [None]
        told = [repr(one), repr(store), str(vars(store)["_spec"])]
        store.close()
        assert not any(WORD in text for text in told)
    refused = r"Redis at 127\.0\.0\.1:\d+: refuses us \(.*\)\. Set store\.username, and password_env or password_file"
    elsewhere = replace(spec, prefix="elsewhere:").open()
    with pytest.raises(StoreError, match=refused) as caught:
        elsewhere.put_cards({"i": {}})
    elsewhere.close()
    messages = [str(caught.value)]
    for name, user in (("WRONG", "app"), (VARIABLE, "nobody"), ("", "")):
        monkeypatch.setenv("WRONG", WORD + "!")
        with pytest.raises(StoreError, match=refused) as caught:
            replace(spec, password_env=name, username=user).open()
        messages.append(str(caught.value))
        assert caught.value.__cause__ is None
    assert not any(WORD in text for text in [*messages, caplog.text])


def test_a_password_that_is_not_there_is_told_before_any_connection(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"the environment variable ZHIYIN_TEST_PASSWORD is not set\. Put the password"
    ):
        Redis(port=1, password_env=VARIABLE).open()
    with pytest.raises(StoreError, match=r"password file .*/absent cannot be read \(No such file or directory\)\. Put"):
        Redis(port=1, password_file=tmp_path / "absent").open()


def test_no_server_a_silent_one_and_one_that_is_no_redis(unused: int, redis_server: "RedisServer") -> None:
    with pytest.raises(StoreError, match=rf"Redis at 127\.0\.0\.1:{unused}: cannot be reached \(.*refused.*\)\. Start"):
        Redis(port=unused).open()
    with pytest.raises(
        StoreError, match=r"Redis Cluster at 127.*: the Cluster is down or in part \(.*\)\. Look at its"
    ):
        Redis(cluster=(f"127.0.0.1:{unused}",)).open()
    with pytest.raises(StoreError, match=r"the Cluster is down or in part"):
        Redis(cluster=(redis_server.address,)).open()
    with pytest.raises(StoreError, match=r"no Sentinel names a master .*Look at the Sentinels"):
        Redis(sentinels=(f"127.0.0.1:{unused}",), service="main").open()
    store = Redis(port=redis_server.port, timeout=0.5).open()
    redis_server.process.send_signal(signal.SIGSTOP)  # it accepts, and says nothing
    try:
        with pytest.raises(StoreError, match=r"no answer within 0\.5 s\. .* raise store\.timeout; a write may or may"):
            store.read(["u"], 1)
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    assert store.read(["u"], 1)[0].profile is None
    store.close()


@pytest.fixture
def unused() -> int:
    """A port that nobody listens on."""
    return free_port()


def test_a_full_server_is_a_sentence_and_a_users_part_is_never_half_kept(
    fresh: Callable[..., "RedisServer"],
) -> None:
    server = fresh("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    store = Redis(port=server.port).open()
    said, kept = "", 0
    while not said:
        try:
            store.append([Event(f"u{kept}", f"i{at}", at, {"pad": "x" * 500}, f"e{at}") for at in range(50)])
            kept += 1
        except StoreError as error:
            said = str(error)
    assert said.endswith("out of memory. Raise the server's maxmemory, or keep less: store.keep, store.ttl_days.")
    assert kept > 5
    counts = [len(state.events) for state in store.read([f"u{at}" for at in range(kept + 1)], 100)]
    assert counts == [50] * kept + [0]
    with pytest.raises(StoreError, match="out of memory"):
        store.put_cards({"i": {"title": "t"}})
    with server.client() as client:
        client.config_set("maxmemory", "100mb")
    assert store.append([Event(f"u{kept}", "i", 1)]) == 1
    store.close()


def test_a_replica_says_that_the_master_is_wanted(fresh: Callable[..., "RedisServer"], unused: int) -> None:
    server = fresh("--replicaof", f"127.0.0.1 {unused}", "--replica-serve-stale-data", "yes")
    store = Redis(port=server.port).open()
    assert store.read(["u"], 1)[0].events == ()
    for write in (lambda: store.append([Event("u", "i", 1)]), lambda: store.put_cards({"i": {}})):
        with pytest.raises(StoreError, match=r"a replica, which cannot be written to\. Name the master, or set store"):
            write()
    store.close()


def test_a_key_of_another_kind_is_told_and_left_alone(
    placed: Placed, tmp_path: Path, redis_server: "RedisServer"
) -> None:
    spec = cast(Redis, placed(Redis(), tmp_path))
    store, key = spec.open(), f"{spec.prefix}{{{digest('u').hex()}}}e"
    with redis_server.client() as client:
        client.set(key, "theirs")
        for call in (lambda: store.read(["u"], 5), lambda: store.append([Event("u", "i", 1)])):
            with pytest.raises(StoreError, match="answered .*WRONGTYPE.* Look at the server"):
                call()
        assert client.get(key) == b"theirs"
    store.close()


def test_what_too_few_replicas_have_is_not_said_to_be_kept(fresh: Callable[..., "RedisServer"], turns: "Turns") -> None:
    master = fresh("--repl-diskless-sync-delay", "0")
    replica = fresh("--replicaof", f"127.0.0.1 {master.port}")
    until(lambda: master.followed(1))
    store = Redis(port=master.port, replicas=1, timeout=2.0).open()
    direct = Redis(port=replica.port).open()
    assert store.append([Event("u", "i", 1, id="a"), Event("v", "i", 1)]) == 2
    assert [len(state.events) for state in direct.read(["u", "v"], 9)] == [1, 1]
    assert turns.of(lambda: store.append([Event("u", "i", 2)])) == (1, 1)
    store.put_changes([Change("i", 1, None)])
    assert len(direct.changes(0, 9).changes) == 1
    replica.process.send_signal(signal.SIGSTOP)
    try:
        for write in (
            lambda: store.append([Event("u", "j", 3, id="b")]),
            lambda: store.put_changes([Change("j", 1, {})]),
        ):
            with pytest.raises(StoreError, match=r"kept by the master, but 0 of the 1 replicas .* send it again"):
                write()
        again = Redis(port=master.port, replicas=1, timeout=0.5).open()  # its connection has written nothing yet
        with pytest.raises(StoreError, match="0 of the 1 replicas"):
            again.append([Event("u", "j", 3, id="b")])
        again.close()
    finally:
        replica.process.send_signal(signal.SIGCONT)
    assert store.append([Event("u", "j", 3, id="b"), Event("u", "j", 4)]) == 1
    assert [event.time for event in direct.read(["u"], 9)[0].events] == [1, 2, 3, 4]
    assert store.append([]) == 0
    with master.client() as client:
        before = cast(Any, client).info("replication")["master_repl_offset"]
        assert store.append([Event("u", "j", 4)]) == 0
        after = cast(Any, client).info("replication")["master_repl_offset"]
        assert after - before > 100, "what is sent again is written again, or there is nothing to wait for"
        cast(Any, client).script_flush()
    assert store.append([Event("u", "j", 5)]) == 1, "also by a master that knows no script yet"
    for one in (store, direct):
        assert [event.time for event in one.read(["u"], 9)[0].events] == [1, 2, 3, 4, 5]
    store.close()
    direct.close()


def test_where_one_node_knows_no_script_each_waits_for_its_own_replicas(
    replicated: tuple["RedisCluster", "RedisServer"],
) -> None:
    """The second master has a replica; what its script wrote was waited for, and is not asked about anew."""
    cluster, _ = replicated
    store = Redis(cluster=cluster.addresses, replicas=1, timeout=2.0).open()
    owners = {f"u{at}": cast(Any, store)._node(store._keys(f"u{at}")[0]) for at in range(30)}
    safe = [user for user, owner in owners.items() if owner.endswith(f":{cluster.nodes[1].port}")]
    other = next(user for user in owners if user not in safe)
    store.append([Event(safe[0], "i", 1)])
    waited: list[str] = []
    ask = store._answers

    def answers(commands: list[Any]) -> list[Any]:
        waited.extend(store._node(one[3]) for one in commands if one[0] == "WAIT")
        return ask(commands)

    store._answers = answers  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="0 of the 1 replicas"):
        store.append([Event(safe[0], "i", 2), Event(other, "i", 2)])
    assert sorted(waited) == sorted([owners[safe[0]], owners[other], owners[other]])
    assert [len(state.events) for state in store.read([safe[0], other], 9)] == [2, 1]
    store.close()


def test_in_a_cluster_the_replicas_of_each_master_count(
    replicated: tuple["RedisCluster", "RedisServer"], turns: "Turns"
) -> None:
    """The second master has one, the others have none."""
    cluster, _ = replicated
    store = Redis(cluster=cluster.addresses, replicas=1, timeout=2.0).open()
    owners = {f"u{at}": cast(Any, store)._node(store._keys(f"u{at}")[0]) for at in range(30)}
    safe = [user for user, owner in owners.items() if owner.endswith(f":{cluster.nodes[1].port}")]
    others = [user for user in owners if user not in safe]
    assert len(safe) > 1 < len(others)
    assert store.append([Event(user, "i", 1) for user in safe]) == len(safe)
    assert turns.of(lambda: store.append([Event(user, "i", 2) for user in safe])) == (1, 1)
    with pytest.raises(StoreError, match="0 of the 1 replicas"):
        store.append([Event(user, "i", 1) for user in owners])
    assert [len(state.events) for state in store.read(others, 9)] == [1] * len(others), "kept, and may be sent again"
    store.close()


@pytest.fixture
def sentinel(fresh: Callable[..., "RedisServer"], tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A Sentinel that knows one master as `main`: its address, and the master's port."""
    master, port = fresh().port, free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n")
    command = ["redis-server", str(settings), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, protocol=2) as client:
        until(lambda: bool(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "main")))
    yield f"127.0.0.1:{port}", master
    process.kill()
    process.wait()


def test_sentinels_name_the_master(sentinel: tuple[str, int]) -> None:
    address, master = sentinel
    store, direct = Redis(sentinels=(address,), service="main").open(), Redis(port=master).open()
    assert store.append([Event("u", "i", 1)]) == 1
    assert direct.read(["u"], 1)[0].events == (Event("u", "i", 1),)
    with pytest.raises(StoreError, match=r"Redis 'other' of the Sentinels at .*: no Sentinel names a master"):
        Redis(sentinels=(address,), service="other").open()
    store.close()
    direct.close()


def certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *files], check=True, capture_output=True)
    return certificate, key


def test_over_tls_both_sides_show_who_they_are(fresh: Callable[..., "RedisServer"], tmp_path: Path) -> None:
    certificate, key = certificates(tmp_path)
    port, files = free_port(), ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    fresh("--tls-port", str(port), *files, "--tls-ca-cert-file", str(certificate))
    spec = Redis(port=port, tls=True, ca=certificate, certificate=certificate, key=key)
    store = spec.open()
    assert store.append([Event("u", "i", 1)]) == 1
    store.close()
    for stranger in (replace(spec, ca=None), replace(spec, certificate=None, key=None), Redis(port=port)):
        with pytest.raises(StoreError, match=r"cannot be reached \(.*\)\. Start the server, or set \[store\]"):
            stranger.open()
    with pytest.raises(StoreError, match=r"the file .*/absent cannot be read\. Set store\.ca"):
        replace(spec, ca=tmp_path / "absent").open()


class Load:
    """Threads that append events, each counted once it is acknowledged, and sent again where it is not known to be."""

    def __init__(self, spec: Redis, threads: int = 3) -> None:
        self.store = spec.open()
        self.done = threading.Event()
        self.acknowledged: list[int] = [0] * threads
        self.kept: list[int] = [0] * threads
        self.sentences: set[str] = set()
        self.broken: list[BaseException] = []
        self.threads = [threading.Thread(target=self.work, args=(at,)) for at in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self, thread: int) -> None:
        try:
            while not self.done.is_set():
                self.append(thread, self.acknowledged[thread])
        except BaseException as error:
            self.broken.append(error)

    def append(self, thread: int, number: int) -> None:
        """Five users' events; those of a user carry ids by turns."""
        events = [Event(f"{thread}.{at}", f"i{number}", number, id=f"{number}" * (number % 2)) for at in range(5)]
        try:
            new = self.store.append(events)
        except StoreError as error:
            self.sentences.add(str(error))
            time.sleep(0.01)
        else:
            self.kept[thread] += new
            self.acknowledged[thread] += 1

    def reach(self, more: int) -> None:
        """Until every thread had `more` answers."""
        goals = [count + more for count in self.acknowledged]
        until(lambda: bool(self.broken) or all(a >= b for a, b in zip(self.acknowledged, goals, strict=True)))

    def stop(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()
        assert not self.broken

    def nothing_lost_or_doubled(self) -> None:
        """Every acknowledged event is there once; beside them at most the one that was under way."""
        for thread, acknowledged in enumerate(self.acknowledged):
            states = self.store.read([f"{thread}.{at}" for at in range(5)], 1_000_000)
            for state in states:
                times = [event.time for event in state.events]
                assert times in (list(range(acknowledged)), list(range(acknowledged + 1)))
            assert self.kept[thread] <= sum(len(state.events) for state in states)


def test_a_server_killed_under_load_loses_nothing_and_doubles_nothing(fresh: Callable[..., "RedisServer"]) -> None:
    server = fresh()
    load = Load(Redis(port=server.port, keep=1_000_000))
    try:
        for _ in range(3):
            load.reach(20)
            server.kill()
            until(lambda: bool(load.sentences))
            server.start()
        load.reach(20)
    finally:
        load.stop()
    server.kill()
    server.start()
    load.nothing_lost_or_doubled()
    assert all(re.search(r"cannot be reached|still reads its data", one) for one in load.sentences), load.sentences
    load.store.close()


def test_a_master_of_a_cluster_killed_under_load_comes_back(redis_cluster: "RedisCluster") -> None:
    load = Load(Redis(cluster=redis_cluster.addresses, keep=1_000_000, prefix="killed:"))
    victim = redis_cluster.nodes[1]
    try:
        load.reach(10)
        victim.kill()
        until(lambda: bool(load.sentences))
        victim.start()
        redis_cluster.wait()
        load.reach(10)
    finally:
        load.stop()
        if victim.process.poll() is not None:
            victim.start()
            redis_cluster.wait()
    load.nothing_lost_or_doubled()
    wanted = r"^Redis Cluster at .*: (cannot be reached|the Cluster is down or in part|still reads)"
    assert all(re.search(wanted, one) for one in load.sentences), load.sentences
    load.store.close()


def test_when_a_master_is_killed_its_replica_takes_over(replicated: tuple["RedisCluster", "RedisServer"]) -> None:
    cluster, replica = replicated
    load = Load(Redis(cluster=cluster.addresses, keep=1_000_000))
    try:
        load.reach(10)
        cluster.nodes[1].kill()
        until(lambda: bool(load.sentences))
        load.reach(10)
    finally:
        load.stop()
    with replica.client() as client:
        assert cast(Any, client).info("replication")["role"] == "master"
    load.nothing_lost_or_doubled()
    load.store.close()


def test_the_call_after_a_restart_works_at_once(fresh: Callable[..., "RedisServer"]) -> None:
    server = fresh()
    store = Redis(port=server.port).open()
    store.append([Event("u", "i", 1)])
    server.kill()
    server.start()
    assert store.append([Event("u", "i", 1), Event("u", "i", 2)]) == 1
    server.kill()
    server.start()
    assert len(store.read(["u"], 9)[0].events) == 2
    store.close()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"keep": 0}, r"keep = 0.*expected keep ≥ 1"),
        ({"ttl_days": -1.0}, r"ttl_days = -1"),
        ({"ttl_days": math.inf}, r"ttl_days = inf"),
        ({"port": 70000}, r"port = 70000"),
        ({"replicas": -1}, r"\.replicas: -1; expected at least 0"),
        ({"timeout": 0.0}, r"timeout = 0\.0; expected seconds"),
        ({"prefix": "a{b}"}, r"\.prefix: 'a\{b\}'; expected printable text without"),
        ({"prefix": "a\r\n"}, r"\.prefix"),
        ({"cluster": ("a:1",), "db": 1}, r"\.cluster: a Cluster has no Sentinels and no db but 0"),
        ({"cluster": ("a",)}, r"\.cluster: 'a'; expected \"host:port\" each"),
        ({"sentinels": ("a:x",), "service": "m"}, r"\.sentinels: 'a:x'"),
        ({"sentinels": ("a:1",)}, r"\.service: sentinels and service go together"),
        ({"password_env": "A", "password_file": Path("b")}, r"\.password_file: a password from two places"),
        ({"ca": Path("a")}, r"\.tls: certificates without TLS"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Redis(**table)


def test_paths_are_relative_to_the_recipe_and_a_password_in_it_is_no_key(tmp_path: Path) -> None:
    tables = {"data": {"events": "log.csv"}, "store": {"use": "redis:Redis", "password_file": "secret"}}
    assert Recipe.of(tables, tmp_path / "recipe.toml").store == Redis(password_file=tmp_path / "secret")
    with pytest.raises(SpecError, match=r"recipe\.toml store: unknown key 'password' \(did you mean 'password_"):
        Recipe.of({**tables, "store": {"use": "redis:Redis", "password": WORD}}, tmp_path / "recipe.toml")


WITHOUT = """
import sys
sys.modules["redis"] = None
from zhiyin import spec
from zhiyin.stores.redis import Redis
print(spec.choices("zhiyin.stores"))
try:
    Redis().open()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_the_package_it_says_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    choices, said = done.stdout.splitlines()
    assert "('redis', 'Redis')" in choices
    assert said == "StoreError the package 'redis' is not installed. pip install 'zhiyin[redis]'"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port


def until(true: Callable[[], bool]) -> None:
    """Waits for what will be; the limit only ends a test that has failed."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
