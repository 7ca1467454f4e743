"""Who may change the feature state, and what becomes of it: turns, lease, fold, snapshots, rollback."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from fraudstream.clients.feature_snapshot import (
    fill,
    restore_snapshot,
    snapshot_name,
    snapshots,
    take_snapshot,
)
from fraudstream.clients.feature_state import LEASE_MS, Lease, first_seq, lease_key
from fraudstream.clients.feature_store import (
    FeatureStore,
    RolledBack,
    StateReplaced,
    Unproven,
)
from fraudstream.clients.snapshot_file import Header, check_file, write_file
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.feature_set import NINE
from tests.feature_streams import (
    BEGAN_MS,
    TOPIC,
    Log,
    Stream,
    send_labels,
    standing_clock,
)
from tests.own_server import Server, until

TOPICS = {"transactions": TOPIC, "feedback": "feedback-id"}
NOW_MS = BEGAN_MS + 100_000_000


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "redis").mkdir()
    server = Server(tmp_path / "redis")
    yield server
    server.client.close()
    server.kill()


@pytest.fixture
def connect(own: Server) -> Iterator[Callable[..., FeatureStore]]:
    made: list[FeatureStore] = []

    def make(environment: str = "test") -> FeatureStore:
        store = FeatureStore.connect(
            own.url, environment, NINE, connect_timeout_ms=2_000, request_timeout_ms=2_000
        )
        store.bind(TOPICS)
        made.append(store)
        return store

    with standing_clock():
        yield make
    for store in made:
        store.close()


@pytest.fixture
def log() -> Log:
    """Two partitions of 1,200 transactions in all."""
    stream, log = Stream(1, days=0.1), Log(2)
    for _ in range(1_200):
        log.append(stream.transaction())
    log.partitions[0].append(None)
    return log


def apply_all(store: FeatureStore, log: Log, *, size: int = 200) -> None:
    """Apply a log by batches, each committed before the next."""
    for partition, records in enumerate(log.partitions):
        for begin in range(0, len(records), size):
            end = min(begin + size, len(records))
            store.apply(TOPIC, [log.slice(partition, begin, end, begin - 1)])


def fold_all(store: FeatureStore, log: Log, *, size: int) -> None:
    """Fold a log by batches of another size, each twice, as after an answer that did not come."""
    for partition, records in enumerate(log.partitions):
        for begin in range(0, len(records), size):
            end = min(begin + size, len(records))
            packed = store.pack_fold(TOPIC, [log.slice(partition, begin, end)])
            fresh = sum(record is not None for record in records[begin:end])
            assert store.fold(TOPIC, packed) == fresh
            assert store.fold(TOPIC, packed) == 0


def test_a_fold_gives_the_same_state_as_the_calls_that_were_answered(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    apply_all(connect(), log)
    fold_all(connect("folded"), log, size=333)
    state, folded = own.state("test"), own.state("folded")
    for key in [key for key in state if key[:2] == b"r:"]:
        assert state.pop(key) != b""
        assert folded.pop(key) == b"", "nobody waits for a reply"
    assert int(state.pop(b"seq")) == first_seq(BEGAN_MS) + 1_200
    assert int(folded.pop(b"seq")) == first_seq(BEGAN_MS), "a rebuild gives out no places"
    assert folded == state


def test_an_older_copy_on_a_running_server_is_noticed(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    store = connect()
    store.apply(TOPIC, [log.slice(0, 0, 50)])
    copy = {key: own.client.get(key) for key in own.client.scan_iter()}
    store.apply(TOPIC, [log.slice(0, 50, 100)])
    own.client.mset(copy)  # type: ignore[arg-type]
    with pytest.raises(RolledBack):
        store.apply(TOPIC, [log.slice(1, 0, 10)])
    with pytest.raises(RolledBack):
        send_labels(store, [], 0)
    with pytest.raises(RolledBack):
        store.confirm()


def test_after_a_restart_nothing_is_answered_before_somebody_has_vouched(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    one, two = connect(), connect()
    one.apply(TOPIC, [log.slice(0, 0, 50)])
    own.kill()
    own.start()
    until(lambda: one.state.look() is not None)
    with pytest.raises(Unproven):
        one.confirm()
    until(lambda: two.state.look() is not None)
    process = two.state.server.run_id()
    assert not two.state.vouch(NOW_MS, "of the server before")
    with pytest.raises(Unproven):
        one.confirm()
    assert two.state.vouch(NOW_MS, process)
    applied = one.apply(TOPIC, [log.slice(0, 50, 60)])
    assert applied.apply_seq.tolist() == [first_seq(NOW_MS) + i for i in range(1, 11)]
    assert two.state.vouch(NOW_MS + 1, process)
    assert two.apply(TOPIC, [log.slice(0, 60, 61)]).apply_seq.tolist() == [first_seq(NOW_MS) + 11]


def test_places_stay_exact_in_a_double_and_rise_faster_than_they_are_given_out() -> None:
    assert first_seq(8_000_000_000_000) < 2**53
    assert first_seq(NOW_MS + 1_000) - first_seq(NOW_MS) > 1_000_000


def test_each_turn_ends_the_one_before(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    worker, slow, other = connect(), connect(), connect()
    apply_all(worker, log)
    assert slow.state.move("rebuilding")
    with pytest.raises(StateReplaced):
        worker.confirm()
    lease = Lease.take(slow.state)
    assert lease is not None
    assert Lease.take(other.state) is None
    assert slow.state.move("rebuilding", holder=lease.token, proven=True)
    own.client.delete(lease_key(slow.state))  # it ran out
    assert not lease.renew()
    assert Lease.take(other.state) is not None
    other.adopt()
    assert other.state.move("rebuilding", holder="other", proven=True)
    with pytest.raises(StateReplaced):
        slow.fold(TOPIC, slow.pack_fold(TOPIC, [log.slice(0, 0, 10)]))
    assert not slow.state.move("ready", proven=True)
    before = own.state("test")
    own.client.set(f"{other.state.tag}:v3:former:c:x", "x")
    assert slow.state.forget_others() == 0, "it no longer knows which state is the present one"
    assert other.state.forget_others() == 1
    assert own.state("test") == before


def test_a_lease_runs_out_by_itself_and_is_not_taken_from_its_holder(
    connect: Callable[..., FeatureStore], own: Server
) -> None:
    state = connect().state
    lease = Lease.take(state)
    assert lease is not None
    key = lease_key(state)
    assert 0 < int(own.client.pttl(key)) <= LEASE_MS
    own.client.set(key, "somebody else's")
    with lease:
        pass
    assert own.client.get(key) == b"somebody else's"


def test_only_who_comes_in_the_place_of_a_holder_takes_its_lease(
    connect: Callable[..., FeatureStore],
) -> None:
    former, heir = connect().state, connect().state
    of_former = Lease.take(former, "scorer.1")
    assert of_former is not None
    for other in ("", "scorer", "scorer.10", "scorer.2"):
        assert Lease.take(heir, other) is None, other
    of_heir = Lease.take(heir, "scorer.1")
    assert of_heir is not None
    assert not of_former.renew()
    with of_former:
        pass
    assert of_heir.renew(), "what is another's is not given back"


def test_an_evicted_lease_costs_nothing_but_the_turn(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    own.client.config_set("maxmemory-policy", "volatile-ttl")
    store = connect()
    apply_all(store, log)
    before = own.state("test")
    lease = Lease.take(store.state)
    assert lease is not None
    own.client.config_set("maxmemory", 1)
    with pytest.raises(DependencyUnreachable, match="memory"):
        store.apply(TOPIC, [log.slice(0, 0, 10)])
    own.client.config_set("maxmemory", 0)
    assert not lease.renew()
    assert own.state("test") == before


def test_a_server_that_became_a_replica_is_back_pressure(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    store = connect()
    store.apply(TOPIC, [log.slice(0, 0, 50)])
    own.client.replicaof("127.0.0.1", 1)
    own.client.config_set("replica-serve-stale-data", "yes")
    with pytest.raises(DependencyUnreachable, match=r"role|memory"):
        store.apply(TOPIC, [log.slice(0, 50, 100)])
    own.client.replicaof("NO", "ONE")
    assert len(store.apply(TOPIC, [log.slice(0, 50, 100)]).apply_seq) == 50


@pytest.fixture
def taken(connect: Callable[..., FeatureStore], log: Log, tmp_path: Path) -> Path:
    """A snapshot of the whole log."""
    store, path = connect(), tmp_path / snapshot_name(NOW_MS, NINE)
    apply_all(store, log)
    done = take_snapshot(store.state, path, environment="test", now_ms=NOW_MS)
    assert (done.file, done.bytes) == (str(path), path.stat().st_size)
    assert done.marks["transactions"] == {p: len(part) - 1 for p, part in enumerate(log.partitions)}
    assert snapshots(tmp_path, NINE) == [path]
    return path


def test_a_snapshot_that_is_restored_is_the_same_state(
    connect: Callable[..., FeatureStore], own: Server, taken: Path
) -> None:
    before, worker = own.state("test"), connect()
    own.client.flushall()
    store = connect("new")
    done = restore_snapshot(store.state, taken, TOPICS)
    assert done.keys == len(before)
    assert own.state("new") == before
    assert store.adopt().state == "rebuilding", "a worker rolls it forward first"
    with pytest.raises(StateReplaced):
        worker.confirm()


def test_the_state_that_was_copied_goes_on(
    connect: Callable[..., FeatureStore], taken: Path
) -> None:
    store = connect()
    assert taken.exists()
    assert store.adopt().state == "ready"
    store.confirm()


def rewritten(path: Path, **changes: object) -> Path:
    """Return a whole snapshot like that of `path` with another header."""
    header = msgspec.structs.replace(check_file(path), **changes)
    other = path.with_name("other.features")
    with (path.parent / "none").open("w+b") as nothing:
        write_file(other, header, nothing)
    return other


def cut(path: Path) -> Path:
    with path.open("ab") as file:
        file.truncate(path.stat().st_size - 40)
    return path


def flipped(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def foreign(path: Path) -> Path:
    path.write_bytes(b"something else" + hashlib.sha256(b"something else").digest())
    return path


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "not as it was written"),
        (flipped, "not as it was written"),
        (foreign, "no snapshot of features"),
        (lambda path: path.with_name("gone"), "No such file"),
        (lambda path: rewritten(path, state_version=4), "update fraudstream"),
        (lambda path: rewritten(path, state_version=1), "no longer"),
        (lambda path: rewritten(path, feature_set="other"), "of feature set other"),
        (lambda path: rewritten(path, topics={"transactions": "before"}), "another topic"),
    ],
)
def test_a_snapshot_that_does_not_fit_is_refused_and_changes_nothing(
    spoil: Callable[[Path], Path],
    says: str,
    connect: Callable[..., FeatureStore],
    own: Server,
    taken: Path,
) -> None:
    store, before = connect(), dict(own.state("test"))
    with pytest.raises(Refused, match=says):
        restore_snapshot(store.state, spoil(taken), TOPICS)
    assert own.state("test") == before
    store.confirm()


def test_nothing_is_copied_or_restored_while_somebody_works_on_the_state(
    connect: Callable[..., FeatureStore], taken: Path, tmp_path: Path
) -> None:
    state = connect().state
    lease = Lease.take(state)
    assert lease is not None
    with pytest.raises(Refused, match="just now"):
        restore_snapshot(state, taken, TOPICS)
    with lease:
        pass
    assert state.move("rebuilding")
    target = tmp_path / "never.features"
    with pytest.raises(Refused, match="being rebuilt"):
        take_snapshot(state, target, environment="test", now_ms=NOW_MS)
    assert not list(tmp_path.glob("never*"))


def test_a_copy_of_a_state_that_somebody_moved_on_is_not_kept(
    connect: Callable[..., FeatureStore],
    own: Server,
    log: Log,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, other = connect(), connect()
    apply_all(store, log)

    def move_on(*_: object) -> bytes:
        other.adopt()
        other.state.move("ready")
        return b""

    monkeypatch.setattr("fraudstream.clients.feature_snapshot.packed_record", move_on)
    with pytest.raises(Exception, match="moved on while it was copied"):
        take_snapshot(store.state, tmp_path / "x.features", environment="test", now_ms=NOW_MS)
    assert not list(tmp_path.glob("x.*"))


def begin_anew(own: Server, store: FeatureStore) -> None:
    """Let the server be another process before the store's next command."""
    own.kill()
    own.start()
    until(lambda: store.state.look() is not None)


def test_a_copy_of_a_server_that_began_anew_meanwhile_is_not_kept(
    connect: Callable[..., FeatureStore],
    own: Server,
    log: Log,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = connect()
    apply_all(store, log)
    began = False

    def once(*_: object) -> bytes:
        nonlocal began
        if not began:
            began = True
            begin_anew(own, store)
        return b""

    monkeypatch.setattr("fraudstream.clients.feature_snapshot.packed_record", once)
    with pytest.raises(FraudstreamError, match="began anew"):
        take_snapshot(store.state, tmp_path / "x.features", environment="test", now_ms=NOW_MS)
    assert not list(tmp_path.glob("x.*"))


def test_what_was_folded_before_the_server_began_anew_is_not_called_whole(
    connect: Callable[..., FeatureStore], own: Server, log: Log
) -> None:
    store = connect()
    process = store.state.server.run_id()
    assert store.state.move("rebuilding", holder="this one", proven=True)
    store.fold(TOPIC, store.pack_fold(TOPIC, [log.slice(0, 0, 10)]))
    begin_anew(own, store)
    assert store.state.finish(NOW_MS, process) is None
    assert store.adopt().state == "rebuilding"
    assert store.state.finish(NOW_MS, store.state.server.run_id()) == 0
    store.confirm()


def test_what_was_filled_while_the_server_began_anew_is_not_gone_over_to(
    connect: Callable[..., FeatureStore],
    own: Server,
    taken: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = connect()
    monkeypatch.setattr("fraudstream.clients.feature_snapshot._BYTES_AT_ONCE", 1_000)
    began = False

    def once() -> None:
        nonlocal began
        if not began:
            began = True
            begin_anew(own, store)

    assert store.state.move("rebuilding")
    before = store.state.prefix
    with pytest.raises(StateReplaced):
        fill(store.state, taken, once, proven=True)
    store.adopt()
    assert store.state.prefix == before
    assert fill(store.state, taken, once, proven=True)
    assert store.state.prefix != before


def test_the_header_says_what_a_snapshot_is_of(taken: Path) -> None:
    header = check_file(taken)
    assert isinstance(header, Header)
    assert (header.environment, header.created_at_ms) == ("test", NOW_MS)
    assert header.topics == TOPICS
