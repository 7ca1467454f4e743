"""A rebuild leaves out what the features never had, whatever limits are now and whoever holds up readers."""

import json
import signal
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis

from fraudstream.clients.kafka import transactional_producer
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.passed_over import PassedOver
from tests.integration.test_poison import (
    caught_up,
    check,
    forget,
    letters,
    running,
    send,
    transaction,
)
from tests.processes import faster, wait_until, worker
from verify.ledger import Log

ODD = {"customer": "odd", "terminal": "m1"}


@pytest.mark.parametrize("partitions", [1])
def test_what_was_too_far_ahead_stays_out_of_a_rebuild_after_the_limit_was_raised(
    topics: Settings, log: Log, tmp_path: Path, server: Redis
) -> None:
    today_ms = int(time.time() * 1000)
    first, ahead, last = (today_ms + days * DAY_MS for days in (365, 368, 369))
    send(
        topics,
        [
            transaction(1, entities=ODD, event_time_ms=first, amount_minor=1_000),
            transaction(2, entities=ODD, event_time_ms=ahead, amount_minor=90_000),
        ],
    )
    with running(topics, log, tmp_path):
        pass
    ((_, headers),) = letters(log)
    assert (headers["error_kind"], headers["not_applied"]) == (b"invalid_field", b"all")
    forget(server, topics)
    raised = faster(topics, max_event_ahead_days=1_000)
    send(topics, [transaction(3, entities=ODD, event_time_ms=last, amount_minor=2_000)])
    with running(raised, log, tmp_path) as one:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="rebuilt and scored")
        assert "rebuilt" in one.said()
    scored = [json.loads(each.value or b"") for each in log.records("scores")][-1]
    assert scored["features"][1] == pytest.approx(20 / ((10 + 53) / 2))
    check(topics, log, scored=2, dead=1)


@pytest.mark.parametrize("partitions", [1])
def test_what_a_dead_worker_could_not_read_and_did_not_commit_is_read_by_one_that_can(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    today_ms = int(time.time() * 1000)
    ahead_ms = today_ms + 368 * DAY_MS
    send(topics, [transaction(n, event_time_ms=ahead_ms if n == 2 else today_ms) for n in range(5)])
    change = "the first batch ends the process before its commit"
    with worker(topics, tmp_path / "limited.log", changes=[change]) as limited:
        assert limited.process.wait(60) == -signal.SIGSEGV, limited.said()
    assert log.lag(f"{topics.environment}.scorer")[0] == 0
    with running(faster(topics, max_event_ahead_days=1_000), log, tmp_path) as one:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="rebuilt and scored")
        assert "the features passed over offset 2 of partition 0" in one.said()
    check(topics, log, scored=5, dead=0)


@pytest.mark.parametrize("partitions", [1])
def test_a_letter_behind_an_open_transaction_is_waited_for(topics: Settings) -> None:
    topic = topic_name(topics.environment, "dead-letters")
    open_one = transactional_producer(topics, transactional_id=f"{topics.environment}.by-hand")
    open_one.init_transactions(10)
    open_one.begin_transaction()
    open_one.produce(topic, b"not yet", partition=0)
    assert open_one.flush(10) == 0
    plain = Producer({"bootstrap.servers": topics.kafka_bootstrap})
    letters_of = [
        ("3", "poison", [("not_applied", "all")]),
        ("4", "poison", []),
        ("5", "poison", [("not_applied", "another")]),
        ("6", "too_large", []),  # of an older worker
        ("7", "poison", [("trace", "x"), ("not_applied", "all")]),  # the transaction's own headers
    ]
    for offset, kind, more in letters_of:
        place: list[tuple[str, str | bytes | None]] = [("source_partition", "0")]
        of = [*place, ("source_offset", offset), ("error_kind", kind), *more]
        plain.produce(topic, b"{}", partition=0, headers=of)
    assert plain.flush(10) == 0
    waited = threading.Event()
    passed_over = PassedOver(topics, "a set")

    def meanwhile() -> None:
        if not waited.is_set():
            open_one.abort_transaction(10)
        waited.set()

    with TopicReader(topics) as reader:
        passed_over.refresh(reader, meanwhile)
    assert waited.is_set()
    assert passed_over.places == {(0, 3), (0, 6)}
