"""Feature sets and streams at the limits of what is allowed: values, bytes of state, and what calls cost."""

from collections.abc import Iterator

import msgspec
import pytest
from redis import Redis

from fraudstream.clients import feature_store
from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.core.feature_kinds import DAY_MS, FeatureSet
from fraudstream.core.feature_set import parse
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Entities, Feedback, Transaction
from fraudstream.core.twin import Twin
from tests.feature_cases import pay
from tests.feature_streams import (
    START_MS,
    TOPIC,
    Connect,
    mutated,
    one,
    rows,
    send_labels,
    twin_replies,
)
from tests.integration.test_feature_sets import keys


def made(lateness: str, label_delay: str, *lines: str) -> FeatureSet:
    """Return a set of these lines."""
    parameters = f'[parameters]\nlateness = "{lateness}"\nlabel_delay = "{label_delay}"\n'
    return parse(parameters + "[features]\n" + "\n".join(lines), "limits.toml", "limits")


def test_a_set_that_keeps_entries_for_a_millisecond_equals_the_twin(connect: Connect) -> None:
    shortest = made(
        "1ms",
        "1ms",
        'count = { entity = "terminal", window = "1ms", aggregate = "count" }',
        'share = { entity = "terminal", window = "1ms", profile = "fraud_share" }',
        'ratio = { entity = "customer", profile = "ratio" }',
    )
    store, twin = connect("", shortest), Twin(shortest)
    for offset, ms in enumerate((0, 0, 1, 1, 2, 3, 2, 5, 5, 4, 100, 99)):
        batch = one(pay(0, customer=f"c{offset % 2}", plus_ms=ms), offset)
        assert rows(store.apply(TOPIC, batch)) == twin_replies(twin, batch)


def two_partitions(store: FeatureStore, turns: tuple[int, ...]) -> None:
    """Apply transactions of one terminal, each the next of one of two partitions: an hour apart in each."""
    ends = [0, 0]
    for partition in turns:
        n = ends[partition]
        paid = pay(n / 24, customer=f"c{partition}", name=f"tx{partition}-{n}", plus_ms=partition)
        (part,) = one(paid, n)
        store.apply(TOPIC, [msgspec.structs.replace(part, partition=partition)])
        ends[partition] += 1


def test_a_label_delay_beyond_the_retention_leaves_one_state_for_any_interleaving(
    connect: Connect, server: Redis, settings: Settings
) -> None:
    slow_labels = made(
        "3h", "30d", 'run = { entity = "terminal", window = "5h", profile = "confirmed_run" }'
    )
    orders = {
        "-turns": (0, 1) * 40,
        "-first": (0,) * 40 + (1,) * 40,
        "-last": (1,) * 40 + (0,) * 40,
    }
    for name, turns in orders.items():
        two_partitions(connect(name, slow_labels), turns)
    states = [keys(server, settings, name) for name in orders]
    assert b"t:shop" in states[0]
    assert states[0] == states[1] == states[2]


def at_one_time(n: int, *, after_ms: int = 0) -> Iterator[Slice]:
    """Yield n transactions of one terminal and one millisecond, each of another customer, 500 a batch."""
    for offsets in (range(first, min(first + 500, n)) for first in range(0, n, 500)):
        yield Slice(
            partition=0,
            previous_offset=offsets[0] - 1,
            last_offset=offsets[-1],
            committed_offset=offsets[0] - 1,
            offsets=list(offsets),
            transactions=[
                Transaction(
                    1,
                    f"tx{i}",
                    START_MS + after_ms,
                    "purchase",
                    5_000,
                    "EUR",
                    Entities(f"c{i}", "shop"),
                )
                for i in offsets
            ],
        )


def test_thousands_of_transactions_of_one_time_are_found_their_place_quickly(
    connect: Connect, server: Redis
) -> None:
    store = connect()
    before_s = cpu_s(server)
    for batch in at_one_time(8_000):
        store.apply(TOPIC, [batch])
    used_s = cpu_s(server) - before_s
    assert used_s < 4.0, "by looking at one after the other: 9 s"


def cpu_s(server: Redis) -> float:
    """Return the CPU time that the server has used."""
    used = server.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


READS = "  local entities, keys = {}, {}\n"
SLOWLY = "  local begun = clock()\n  while clock() - begun < 0.03 do end\n"


def test_a_call_that_takes_long_to_read_its_entities_applies_more_than_a_few(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "build_library", mutated((READS, READS + SLOWLY)))
    store, made_calls = connect(), 0
    call = store._call  # noqa: SLF001

    def counted(function: str, topic_id: str, blob: bytes) -> object:
        nonlocal made_calls
        made_calls += 1
        return call(function, topic_id, blob)

    monkeypatch.setattr(store, "_call", counted)
    (batch,) = at_one_time(500)
    store.apply(TOPIC, [batch])
    assert made_calls <= 8, "32 transactions a call are 16 calls"


def test_labels_that_come_long_before_their_transactions_do_not_hold_the_server(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    labels = [
        Feedback(1, f"tx{i}", START_MS + i, Entities("c", "shop"), "fraud", START_MS + DAY_MS)
        for i in range(2_000)
    ]
    for first in range(0, 2_000, 500):
        send_labels(store, labels[first : first + 500], first)
    monkeypatch.setattr(feature_store, "CALL_MS", 0)
    more = Feedback(1, "tx", START_MS, Entities("c", "shop"), "fraud", START_MS + DAY_MS)
    calls: list[object] = []
    call = store._call  # noqa: SLF001

    def counted(function: str, topic_id: str, blob: bytes) -> object:
        calls.append(function)
        return call(function, topic_id, blob)

    monkeypatch.setattr(store, "_call", counted)
    assert send_labels(store, [more] * 10, 2_000) == 10
    assert len(calls) == 10, "after each the clock is looked at"
    calls.clear()
    store.apply(TOPIC, list(at_one_time(64, after_ms=9 * DAY_MS)))
    assert len(calls) == 64, "each looks through the labels of the shop"
