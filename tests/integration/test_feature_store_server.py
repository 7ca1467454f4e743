"""What the feature store makes of a server that is away, slow, full, unfit or of another state."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_memory import memory_of
from fraudstream.clients.feature_store import FeatureStore, Slice, Unproven
from fraudstream.core.errors import DependencyUnreachable, Refused, SettingsError
from fraudstream.core.feature_set import DAY_MS, NINE, FeatureSet
from fraudstream.core.twin import Twin, TwinReply
from tests.feature_set_samples import SETS
from tests.feature_streams import TOPIC, Log, Stream, rows, twin_replies
from tests.own_server import Server, until
from tests.ports import free_port
from verify.bench.load import Load


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.client.close()
    server.kill()


def connect(
    url: str,
    feature_set: FeatureSet = NINE,
    *,
    timeout_ms: int = 2_000,
    connect_timeout_ms: int = 2_000,
) -> FeatureStore:
    return FeatureStore.connect(
        url,
        "test",
        feature_set,
        connect_timeout_ms=connect_timeout_ms,
        request_timeout_ms=timeout_ms,
    )


@pytest.fixture
def log() -> Log:
    """One partition of 200 transactions."""
    stream, log = Stream(1), Log(1)
    for _ in range(200):
        log.append(stream.transaction())
    return log


def test_an_absent_server_is_named_without_its_password() -> None:
    port = free_port()
    with pytest.raises(DependencyUnreachable) as caught:
        connect(f"redis://scorer:secret@127.0.0.1:{port}/2")
    assert f"127.0.0.1:{port}/2" in str(caught.value)
    assert "stack status" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_reads_its_data_from_disk_is_waited_for(own: Server) -> None:
    fill_slowly(own)
    connect(own.url, timeout_ms=20_000, connect_timeout_ms=60_000).close()
    assert own.client.dbsize() >= LOADED


def test_a_server_that_reads_its_data_for_too_long_is_named(own: Server) -> None:
    fill_slowly(own)
    with pytest.raises(DependencyUnreachable, match="loading the dataset in memory"):
        FeatureStore.connect(own.url, "test", connect_timeout_ms=100, request_timeout_ms=5_000)


LOADED = 2_000


def fill_slowly(own: Server) -> None:
    """Have the server start with data that takes it a second to read."""
    own.client.mset({f"key-{i}": i for i in range(LOADED)})
    own.client.bgrewriteaof()
    until(lambda: not own.client.info("persistence")["aof_rewrite_in_progress"])
    own.kill()
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    own.start(*slow, wait=False)
    until(lambda: loads(own))


def loads(own: Server) -> bool:
    client = Redis(port=own.port, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    except BusyLoadingError:
        return True
    except RedisError:
        return False
    finally:
        client.close()
    raise AssertionError("the server was done before it was looked at")


def test_an_address_that_is_no_url_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="redis_url"):
        connect("localhost:6379")


def test_a_wrong_password_is_refused(own: Server) -> None:
    own.client.config_set("requirepass", "right")
    with pytest.raises(Refused, match="password") as caught:
        connect(own.url.replace("//", "//:wrong@"))
    assert "wrong" not in str(caught.value)
    connect(own.url.replace("//", "//:right@")).close()


@pytest.mark.parametrize(("policy", "fit"), [("allkeys-lru", False), ("volatile-ttl", True)])
def test_a_server_that_evicts_what_has_no_expiry_is_refused(
    policy: str, *, fit: bool, own: Server
) -> None:
    own.client.config_set("maxmemory-policy", policy)
    if fit:
        connect(own.url).close()
    else:
        with pytest.raises(Refused, match=f"{policy}.*noeviction"):
            connect(own.url)


def test_a_server_that_evicts_since_it_began_anew_is_refused_by_those_who_were_connected(
    own: Server,
) -> None:
    store = connect(own.url)
    store.state.server.check_again()
    own.kill()
    own.start("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(Refused, match=r"allkeys-lru.*noeviction"):
        store.state.server.check_again()
    store.close()


def apply_until_refused(store: FeatureStore, log: Log) -> str:
    """Apply records again and again until the server is refused; return what is said then."""
    end = monotonic_s() + 10
    try:
        while monotonic_s() < end:
            store.apply(TOPIC, [log.slice(0, 0, 100)])
    except Refused as exc:
        return str(exc)
    pytest.fail("the server is not refused")


def test_a_server_at_work_that_is_set_to_evict_is_refused(own: Server, log: Log) -> None:
    store = connect(own.url)
    own.client.config_set("maxmemory-policy", "allkeys-lru")
    said = apply_until_refused(store, log)
    assert "allkeys-lru" in said
    assert "rebuilt" not in said
    assert store.state.look() is not None, "nothing was lost"
    store.close()


def test_a_state_of_which_keys_were_evicted_is_given_up(own: Server, log: Log) -> None:
    store = connect(own.url)
    own.client.config_set("maxmemory-policy", "volatile-ttl")
    own.client.set("a key of somebody else", "x", ex=1_000)
    own.client.config_set("maxmemory", 1)
    until(lambda: own.client.info("stats")["evicted_keys"] > 0)
    own.client.config_set("maxmemory", 0)
    own.client.config_set("maxmemory-policy", "allkeys-random")
    assert "has evicted 1 keys" in apply_until_refused(store, log)
    assert store.state.look() is None
    store.close()


def test_a_batch_above_what_a_call_takes_is_applied_by_several(own: Server) -> None:
    stream, log, twin = Stream(2), Log(2), Twin()
    for _ in range(2_600):
        log.append(stream.transaction())
    batch = [log.slice(p, 0, len(log.partitions[p])) for p in (0, 1)]
    store = connect(own.url)
    own.client.config_resetstat()
    expected = twin_replies(twin, batch)
    assert rows(store.apply(TOPIC, batch)) == expected
    assert own.client.info("commandstats")["cmdstat_fcall"]["calls"] >= 3
    again = store.apply(TOPIC, batch)
    assert again.redelivered.all()
    assert rows(again) == expected
    store.close()


def test_a_read_only_replica_is_refused(own: Server) -> None:
    own.client.replicaof("127.0.0.1", 1)
    with pytest.raises(Refused, match="replica"):
        connect(own.url)


def test_feature_sets_of_an_environment_have_states_of_their_own(own: Server, log: Log) -> None:
    other = msgspec.structs.replace(NINE, hot_ratio=4.0)
    for feature_set in (NINE, other, NINE):
        store = connect(own.url, feature_set)
        mark = store.marks(TOPIC, [0])[0]
        store.apply(TOPIC, [log.slice(0, mark + 1, mark + 11)])
        store.close()
    for feature_set, mark in ((NINE, 19), (other, 9)):
        store = connect(own.url, feature_set)
        assert store.marks(TOPIC, [0]) == {0: mark}
        assert store.state.move("rebuilding"), "a turn on one set leaves the other alone"
        store.state.forget_others()
        store.close()


@pytest.mark.parametrize(("version", "what"), [(4, "update fraudstream"), (1, "version 1")])
def test_a_state_of_another_version_is_refused(version: int, what: str, own: Server) -> None:
    meta = {"state_version": version, "feature_set": NINE.hash, "incarnation": "x"}
    own.client.set(f"{{test:b0}}:meta:{NINE.hash}", json.dumps(meta))
    with pytest.raises(Refused, match=what):
        connect(own.url)


def test_a_full_server_is_back_pressure_and_loses_nothing(own: Server, log: Log) -> None:
    store, twin = connect(own.url), Twin()
    own.client.config_set("maxmemory", 1)
    with pytest.raises(DependencyUnreachable, match="memory"):
        store.apply(TOPIC, [log.slice(0, 0, 100)])
    own.client.config_set("maxmemory", 0)
    batch = [log.slice(0, 0, 100)]
    assert rows(store.apply(TOPIC, batch)) == twin_replies(twin, batch)
    store.close()


def test_a_call_that_times_out_may_be_repeated(own: Server, log: Log) -> None:
    store, twin = connect(own.url, timeout_ms=2_000), Twin()
    store.apply(TOPIC, [log.slice(0, 0, 100)])
    twin_replies(twin, [log.slice(0, 0, 100)])
    own.client.client_pause(6_000)
    batch = [log.slice(0, 100, 200)]
    with pytest.raises(DependencyUnreachable, match="does not answer"):
        store.apply(TOPIC, batch)
    until(lambda: rows(store.apply(TOPIC, batch)) == _replies(log, batch))
    assert store.marks(TOPIC, [0]) == {0: 199}
    store.close()


def test_after_sigkill_and_restart_every_record_is_counted_once(own: Server, log: Log) -> None:
    store = connect(own.url)
    for begin in range(0, 200, 20):
        store.apply(TOPIC, [log.slice(0, begin, begin + 20)])
        own.kill()
        with pytest.raises(DependencyUnreachable):
            store.apply(TOPIC, [log.slice(0, begin + 20, begin + 40)])
        own.start()
        batch = [log.slice(0, begin, min(begin + 30, 200))]
        with pytest.raises(Unproven):
            store.apply(TOPIC, batch)
        assert store.state.vouch(0, store.state.server.run_id())
        again = store.apply(TOPIC, batch)
        assert again.redelivered.sum() == 20
        assert rows(again) == _replies(log, batch)
    store.close()


def test_an_append_only_file_cut_anywhere_holds_whole_calls(own: Server, log: Log) -> None:
    store = connect(own.url)
    states = [_everything(own)]
    for begin in range(0, 200, 40):
        store.apply(TOPIC, [log.slice(0, begin, begin + 40)])
        states.append(_everything(own))
    own.kill()
    (file,) = (own.folder / "appendonlydir").glob("*.incr.aof")
    whole = file.read_bytes()
    assert b"SETRANGE" in whole
    assert b"MSET" in whole
    seen = set()
    for cut in range(40, len(whole) // 2, len(whole) // 60):
        file.write_bytes(whole[:-cut])
        own.start()
        found = _everything(own)
        assert found in states
        seen.add(states.index(found))
        own.kill()
    assert len(seen) > 2
    store.close()


@pytest.mark.parametrize(
    ("name", "busy"), [("nine", 1), ("windows", 1), ("everything", 1), ("nine", 20)]
)
def test_memory_stated_before_is_what_is_measured(name: str, busy: int, own: Server) -> None:
    chosen, customers, terminals = SETS[name], 300 // busy, max(100 // busy**2, 1)
    per_day = 3.0 * busy
    load = Load(customers, terminals, customers * per_day)
    store = connect(own.url, chosen)
    days = max(chosen.customer_retention_ms, chosen.terminal_retention_ms) / DAY_MS * 1.1
    for _ in range(int(days * load.per_day) // 500):
        batch = load.slices(load.transactions(500))
        store.apply(TOPIC, batch)
        load.send_labels(store)
    stated = memory_of(
        chosen,
        {"customer": customers, "terminal": terminals},
        {
            "customer": per_day * chosen.customer_retention_ms / DAY_MS,
            "terminal": per_day * customers / terminals * chosen.terminal_retention_ms / DAY_MS,
        },
        labelled=0.02,
    )
    for each in stated:
        used = _bytes_of(own, each.entity[0])
        assert abs(each.bytes_total / used - 1) <= 0.2, (each, used)
    store.close()


def _bytes_of(own: Server, kind: str) -> int:
    keys = [
        key
        for form in (":", ".")
        for key in own.client.scan_iter(f"{{test:b0}}:v3:*:{kind}{form}*")
    ]
    return sum(own.client.memory_usage(key, samples=0) for key in keys)  # type: ignore[misc]


def _everything(own: Server) -> dict[bytes, bytes]:
    return {key: own.client.get(key) for key in own.client.scan_iter(count=1_000)}  # type: ignore[misc]


def _replies(log: Log, batch: list[Slice]) -> list[TwinReply]:
    """Return what an undisturbed twin says to the records of `batch`, the newest of the log."""
    end = batch[0].last_offset + 1
    undisturbed = twin_replies(Twin(), [log.slice(0, 0, end)])
    return undisturbed[batch[0].previous_offset + 1 :]
