"""The feature store on a real server: equal to the twin bit for bit, contiguous, all or nothing."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis

from fraudstream.clients import feature_store
from fraudstream.clients.feature_library import build_library
from fraudstream.clients.feature_store import (
    Behind,
    FeatureStore,
    ReplyGone,
    Slice,
    StateReplaced,
    Unproven,
)
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Transaction
from fraudstream.core.twin import Twin, TwinReply
from tests.feature_cases import answer, pay
from tests.feature_streams import (
    TOPIC,
    Connect,
    Log,
    Stream,
    batches,
    mutated,
    one,
    rows,
    send_labels,
    twin_replies,
)


def state(server: Redis, environment: str, kinds: str = "") -> dict[bytes, bytes]:
    """Return every key of an environment's state, without environment and incarnation, and its value."""
    pattern = f"{{{environment}:b0}}:v*"
    found = {key.split(b":", 4)[4]: server.get(key) for key in server.scan_iter(pattern)}
    if kinds:
        found = {key: value for key, value in found.items() if chr(key[0]) in kinds}
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("seed", "customers", "terminals", "n"),
    [(1, 40, 25, 20_000), (2, 400, 300, 20_000), (3, 3, 2, 6_000), (4, 3_000, 10, 8_000)],
)
def test_the_store_equals_the_twin_bit_for_bit(
    seed: int, customers: int, terminals: int, n: int, connect: Connect
) -> None:
    store, twin = connect(), Twin()
    differ = Twin(
        msgspec.structs.replace(NINE, label_delay_ms=NINE.label_delay_ms + 1, hot_ratio=3.001)
    )
    stream = Stream(seed, customers=customers, terminals=terminals, days=120 / n)
    labels_sent, control, places = 0, 0, list[int]()
    for slices, labels in batches(stream, n, partitions=3):
        applied = store.apply(TOPIC, slices)
        got = rows(applied)
        assert got == twin_replies(twin, slices)
        control += sum(a != b for a, b in zip(got, twin_replies(differ, slices), strict=True))
        places += applied.apply_seq.tolist()
        send_labels(store, labels, labels_sent)
        labels_sent += len(labels)
        for label in labels:
            twin.label(label)
            differ.label(label)
    assert places == list(range(places[0], places[0] + n))
    assert labels_sent > n / 50
    assert control > 0, "a twin with other parameters must differ"


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_redelivery_in_any_batch_sizes_by_any_worker_changes_nothing(
    data: st.DataObject, seed: int, connect: Connect
) -> None:
    suffix = f"-{next(_examples)}"
    workers = [connect(suffix), connect(suffix)]
    stream, twin, log = Stream(seed, customers=6, terminals=3, days=0.3), Twin(), Log(2)
    want: dict[tuple[int, int], TwinReply] = {}
    ends, committed, labels = [0, 0], [-1, -1], [stream.label() for _ in range(0)]
    for _ in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 30))):
            log.append(stream.transaction())
        log.partitions[data.draw(st.integers(0, 1))].extend([None] * data.draw(st.integers(0, 2)))
        slices = []
        for p in data.draw(st.permutations([0, 1])):
            begin = data.draw(st.integers(committed[p] + 1, ends[p]))
            end = data.draw(st.integers(begin, len(log.partitions[p])))
            stale_committed = data.draw(st.integers(-1, committed[p]))
            slices.append(log.slice(p, begin, end, stale_committed))
        got = data.draw(st.sampled_from(workers)).apply(TOPIC, slices)
        expected = _expected(twin, want, slices, ends)
        assert rows(got) == [reply for reply, _ in expected]
        assert got.redelivered.tolist() == [known for _, known in expected]
        for part in slices:
            p = part.partition
            ends[p] = max(ends[p], part.last_offset + 1)
            committed[p] = data.draw(st.integers(committed[p], ends[p] - 1))
        if stream.sent:
            fresh = [stream.label() for _ in range(data.draw(st.integers(0, 5)))]
            known = data.draw(st.integers(0, len(labels)))
            again = labels[known:] + fresh
            if again:
                assert send_labels(workers[0], again, known) == len(fresh)
            labels += fresh
            for label in fresh:
                twin.label(label)
    assert workers[1].marks(TOPIC, [0, 1]) == {p: end - 1 for p, end in enumerate(ends)}


_examples = itertools.count()


def _expected(
    twin: Twin, want: dict[tuple[int, int], TwinReply], slices: list[Slice], ends: list[int]
) -> list[tuple[TwinReply, bool]]:
    """Return the twin's reply per row and whether it is a repetition; the twin sees each record once."""
    expected = []
    for part in slices:
        for offset, transaction in zip(part.offsets, part.transactions, strict=True):
            place = (part.partition, offset)
            known = offset < ends[part.partition]
            if not known:
                want[place] = twin.apply(part.partition, offset, transaction)
            expected.append((want[place], known))
    return expected


@pytest.mark.parametrize("seed", range(5))
def test_the_final_state_is_the_same_for_any_interleaving_of_partitions(
    seed: int, connect: Connect, server: Redis, settings: Settings
) -> None:
    stream, log = Stream(seed, customers=12, terminals=4, days=0.2), Log(3)
    for _ in range(1_500):
        log.append(stream.transaction())
    labels = [stream.label() for _ in range(100)]
    states = []
    for order in ("one partition after the other", "backwards", "mixed"):
        store = connect(f"-{order[0]}")
        half = len(labels) // 2 if order == "mixed" else 0
        if half:
            send_labels(store, labels[:half], 0)
        ends = [0, 0, 0]
        while ends != [len(records) for records in log.partitions]:
            open_ones = [p for p in range(3) if ends[p] < len(log.partitions[p])]
            p = {"o": open_ones[0], "b": open_ones[-1], "m": stream.random.choice(open_ones)}[
                order[0]
            ]
            end = min(ends[p] + stream.random.randrange(1, 200), len(log.partitions[p]))
            store.apply(TOPIC, [log.slice(p, ends[p], end)])
            ends[p] = end
        send_labels(store, labels[half:], half)
        states.append(state(server, f"{settings.environment}-{order[0]}", "ct"))
    assert len(states[0]) == 16
    assert states[0] == states[1] == states[2]


def test_a_gap_is_refused_and_nothing_of_the_call_is_applied(
    connect: Connect, server: Redis, settings: Settings
) -> None:
    store = connect()
    store.apply(TOPIC, one(pay(0), 0))
    before = state(server, settings.environment)
    fine, gap = one(pay(1), 1), msgspec.structs.replace(one(pay(1), 5)[0], partition=1)
    with pytest.raises(Behind) as caught:
        store.apply(TOPIC, [*fine, gap])
    assert (caught.value.topic_id, caught.value.partition, caught.value.mark) == (TOPIC, 1, -1)
    with pytest.raises(Behind, match=r"partition 0 .* ends at offset 0"):
        store.apply(TOPIC, one(pay(1), 2))
    with pytest.raises(Behind):
        send_labels(store, [answer(pay(0), "fraud", 1)], 3)
    assert state(server, settings.environment) == before
    store.apply(TOPIC, fine)
    assert state(server, settings.environment) != before


def fail_in_the_middle(column: str, store: FeatureStore, patch: pytest.MonkeyPatch) -> None:
    """Make a call whose `column` is malformed from the 51st of 100 records on."""
    stream = Stream(5)
    log = Log(1)
    for _ in range(200):
        log.append(stream.transaction())
    store.apply(TOPIC, [log.slice(0, 0, 100)])
    encode = msgspec.msgpack.Encoder().encode
    place = {"offset": 4, "terminal": 6, "time": 7, "amount": 8, "digest": 9, "label": 10}[column]

    def malformed(value: tuple[Any, ...]) -> bytes:
        *before, sections = value
        section = list(sections[0])
        if column == "digest":
            section[place] = msgspec.Raw(b"\xdb" + (50 * 8).to_bytes(4, "big") + b"x" * 400)
        else:
            section[place] = [*section[place][:50], *([{}] * 50)]
        return encode((*before, [section]))

    patch.setattr("fraudstream.clients.feature_library._encode", malformed)
    if column == "label":
        send_labels(store, [stream.label() for _ in range(100)], 0)
    else:
        store.apply(TOPIC, [log.slice(0, 100, 200)])


@pytest.mark.parametrize("column", ["amount", "terminal", "time", "digest", "offset", "label"])
def test_a_call_that_fails_in_the_middle_changes_nothing(
    column: str,
    connect: Connect,
    server: Redis,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = connect()
    with pytest.raises(FraudstreamError, match=r"Redis at .* answered"):
        fail_in_the_middle(column, store, monkeypatch)
    assert store.marks(TOPIC, [0]) == {0: 99}
    found = state(server, settings.environment)
    assert store.marks("feedback-id", [0]) == {0: -1}
    undisturbed = connect("-undisturbed")
    monkeypatch.undo()
    stream, log = Stream(5), Log(1)
    for _ in range(100):
        log.append(stream.transaction())
    undisturbed.apply(TOPIC, [log.slice(0, 0, 100)])
    want = state(server, f"{settings.environment}-undisturbed")
    assert found == want


def test_control_a_library_that_writes_as_it_goes_is_caught(
    connect: Connect, server: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = mutated(
        (
            "      seq = seq + 1\n",
            "      seq = seq + 1\n      call('SET', customers[customer_of[i]].key, '')\n",
        )
    )
    monkeypatch.setattr(feature_store, "build_library", early)
    with pytest.raises(FraudstreamError, match=r"Redis at .* answered"):
        fail_in_the_middle("amount", connect(), monkeypatch)
    assert b"" in state(server, settings.environment, "c").values()


def _moved(part: Slice, by: int, transactions: list[Transaction]) -> Slice:
    return Slice(
        partition=part.partition,
        previous_offset=part.previous_offset + by,
        last_offset=part.last_offset + by,
        committed_offset=part.committed_offset,
        offsets=[offset + by for offset in part.offsets],
        transactions=transactions,
    )


def test_a_stale_worker_does_no_harm(connect: Connect, server: Redis, settings: Settings) -> None:
    frozen, active = connect(), connect()
    log = [pay(day / 10, customer="me") for day in range(10)]
    first = [rows(frozen.apply(TOPIC, one(log[o], o)))[0] for o in range(5)]
    later = [rows(active.apply(TOPIC, one(log[o], o, committed=3)))[0] for o in range(5, 10)]
    before = state(server, settings.environment)
    again = frozen.apply(TOPIC, one(log[4], 4, committed=-1))
    assert (rows(again), again.redelivered.tolist()) == ([first[4]], [True])
    assert state(server, settings.environment) == before
    with pytest.raises(ReplyGone, match="offset 3 in partition 0"):
        frozen.apply(TOPIC, one(log[3], 3))
    assert rows(active.apply(TOPIC, one(log[9], 9)))[0] == later[-1]
    assert state(server, settings.environment) == before


def test_a_slice_without_decodable_records_moves_the_mark(connect: Connect) -> None:
    store = connect()
    empty = Slice(
        partition=4,
        previous_offset=-1,
        last_offset=6,
        committed_offset=-1,
        offsets=[],
        transactions=[],
    )
    assert store.apply(TOPIC, [empty]).features.shape == (0, 9)
    assert store.marks(TOPIC, [3, 4]) == {3: -1, 4: 6}
    assert store.apply(TOPIC, []).features.shape == (0, 9)


def test_a_call_of_5000_records_with_an_entity_each_is_applied_whole(connect: Connect) -> None:
    store, twin = connect(), Twin()
    part = Slice(
        partition=0,
        previous_offset=-1,
        last_offset=4_999,
        committed_offset=-1,
        offsets=list(range(5_000)),
        transactions=[pay(i / 100, terminal=f"shop-{i}") for i in range(5_000)],
    )
    assert rows(store.apply(TOPIC, [part])) == twin_replies(twin, [part])
    assert store.apply(TOPIC, [part]).redelivered.all()
    more = _moved(part, 5_000, [pay(60, terminal=f"shop-{i}") for i in range(5_000)])
    assert rows(store.apply(TOPIC, [more])) == twin_replies(twin, [more])


def test_a_library_that_the_server_lost_is_loaded_again_and_the_state_proven_anew(
    connect: Connect, server: Redis
) -> None:
    store = connect()
    store.apply(TOPIC, one(pay(0), 0))
    server.function_delete(build_library(NINE).name)
    with pytest.raises(Unproven):
        store.apply(TOPIC, one(pay(1), 1))
    assert store.state.vouch(0, store.state.server.run_id())
    assert store.apply(TOPIC, one(pay(1), 1)).features.shape == (1, 9)


def test_a_flushed_state_is_noticed_at_the_next_call(
    connect: Connect, server: Redis, settings: Settings
) -> None:
    store = connect()
    store.apply(TOPIC, one(pay(0), 0))
    server.delete(*server.scan_iter(f"{{{settings.environment}:b0}}:*"))
    with pytest.raises(StateReplaced, match="another feature state"):
        store.apply(TOPIC, one(pay(1), 1))
    with pytest.raises(StateReplaced):
        store.apply(TOPIC, one(pay(0), 0))
    connect().apply(TOPIC, one(pay(0), 0))
    with pytest.raises(StateReplaced):
        store.apply(TOPIC, one(pay(1), 1))


def test_ids_of_any_characters_are_kept_apart(connect: Connect) -> None:
    store, twin = connect(), Twin()
    names = ["ä", "{x}", "a:b", "a\0b", "😀" * 60, " "]
    for offset, (customer, terminal) in enumerate(itertools.product(names, names)):
        part = one(pay(offset, 9_000, customer=customer, terminal=terminal), offset)
        assert rows(store.apply(TOPIC, part)) == twin_replies(twin, part)
