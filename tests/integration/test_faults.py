"""What tries to stop, fool or silence a worker: hostile records, a topic made anew, a broker that hangs."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings, make_settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.state import StackPaths
from producer.generator import make_parameters, source
from producer.pace import AtRate
from producer.replay import ReplayPlan, replay_table
from tests.processes import faster, run, wait_until, worker
from verify.ledger import Log, count


def transaction(number: int) -> bytes:
    return json.dumps(
        {
            "v": 1,
            "transaction_id": f"t{number}",
            "event_time_ms": 1_532_476_800_000 + number,
            "kind": "purchase",
            "amount_minor": 1234,
            "currency": "EUR",
            "entities": {"customer": f"c{number % 50}", "terminal": f"m{number % 20}"},
        }
    ).encode()


Record = tuple[bytes, list[tuple[str, str | bytes | None]]]


def good(numbers: range) -> list[Record]:
    return [(transaction(number), []) for number in numbers]


def send(settings: Settings, records: list[Record], **producer_settings: object) -> None:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "message.max.bytes": 100_000_000,
            **producer_settings,
        }
    )
    topic = topic_name(settings.environment, "transactions")
    for value, headers in records:
        producer.produce(topic, value, b"c1", headers=headers)
    assert producer.flush(30) == 0


def caught_up(settings: Settings, log: Log) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


HOSTILE: dict[str, Record] = {
    "offset of 5,000 digits": (transaction(0), [("after_feedback", b"1" * 5_000)]),
    "nested beyond the stack": (b'{"v":1,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", []),
    "compressed 20 MB": (b"0" * 20_000_000, []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_becomes_a_dead_letter_and_the_stream_goes_on(
    name: str, topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, good(range(1, 11)))
    send(topics, [HOSTILE[name]], **{"compression.type": "gzip"})
    send(topics, good(range(11, 21)))
    with worker(topics, tmp_path / "scorer.log") as running:
        wait_until(
            lambda: caught_up(topics, log) or running.process.poll() is not None,
            timeout_s=30,
            what="past the hostile record",
        )
        assert running.process.poll() is None, running.said()[-2_000:]
        assert running.stop() == 0
    ledger = count(log, f"{topics.environment}.scorer")
    assert ledger.balanced
    assert (ledger.scored, ledger.dead_letters) == (20, 1)


def make_anew(settings: Settings, name: str) -> None:
    """Delete a topic and make it again; the deletion takes effect after its answer."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    topic = topic_name(settings.environment, name)
    for deleted in admin.delete_topics([topic]).values():
        deleted.result()
    wait_until(lambda: topic not in admin.list_topics().topics, timeout_s=20, what="deleted")
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )


def test_a_topic_made_anew_over_old_features_is_refused_before_anything_is_scored(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, good(range(20)))
    with worker(topics, tmp_path / "before.log") as before:
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        assert before.stop() == 0
    make_anew(topics, "transactions")
    send(topics, good(range(20)))
    with worker(topics, tmp_path / "after.log") as after:
        wait_until(
            lambda: after.process.poll() is not None or "owns partitions" in after.said(),
            timeout_s=30,
            what="decided",
        )
        assert after.process.wait(10) == 3
        assert "FRAUDSTREAM_ENVIRONMENT" in after.said()
    with Log(topics) as fresh:
        assert sum(1 for _ in fresh.records("scores")) == 20


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Settings]:
    """Servers of this test alone, so that one may be stopped; topics with two partitions."""
    bare = make_settings({"state_dir": str(tmp_path / "own"), "partitions": 2})
    try:
        found = embedded.up(bare, owner_pid=os.getpid())
        settings = faster(
            bare,
            kafka_bootstrap=found.kafka_bootstrap,
            redis_url=found.redis_url,
            mlflow_url=found.mlflow_url,
        )
        create_topics(settings.kafka_bootstrap, settings.environment, 2, timeout_ms=20_000)
        yield settings
    finally:
        embedded.down(bare, wipe=True)


def kafka_pid(settings: Settings) -> int:
    state = json.loads(StackPaths.of(settings).state.read_text())
    return int(state["servers"]["kafka"]["pid"])


def test_a_stopped_worker_ends_within_ten_seconds_also_while_the_broker_hangs(
    own_stack: Settings, tmp_path: Path
) -> None:
    with worker(own_stack, tmp_path / "scorer.log") as running:
        wait_until(lambda: "owns partitions" in running.said(), timeout_s=30, what="joined")
        send(own_stack, good(range(20_000)))
        with Log(own_stack) as log:
            wait_until(lambda: log.lag("local.scorer")[0] > 500, timeout_s=30, what="under load")
        pid = kafka_pid(own_stack)
        os.kill(pid, signal.SIGSTOP)
        try:
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(10) == 0
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.xfail(
    reason="DecodeError, KeyError, OSError and ValueError reach the user", strict=True
)
def test_no_command_shows_a_stack_trace_when_a_record_or_a_path_is_broken(topics: Settings) -> None:
    producer = Producer({"bootstrap.servers": topics.kafka_bootstrap})
    producer.produce(topic_name(topics.environment, "alerts"), b"no alert")
    producer.produce(topic_name(topics.environment, "dead-letters"), b"no headers")
    assert producer.flush(30) == 0
    for arguments in (
        ("alerts", "tail", "--from-beginning", "--no-follow"),
        ("ledger",),
        ("ledger", "--json", "/nowhere/report.json"),
        ("replay", "--rate", "nan", "--limit", "10"),
    ):
        done = run(topics, *arguments)
        assert "Traceback" not in done.stderr, f"{arguments}: {done.stderr[-500:]}"


def test_two_replays_of_one_source_started_together_send_no_row_twice(
    topics: Settings, log: Log
) -> None:
    stream = source(make_parameters({"seed": 5, "customers": 300, "terminals": 200, "days": 3}))
    plan = ReplayPlan(pace=AtRate(600), limit=900)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(replay_table, topics, stream, plan) for _ in range(2)]
    errors = [each.exception() for each in both]
    refused = [error for error in errors if error is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], Refused)
    assert "another replay of source" in str(refused[0])
    sent = [json.loads(record.value or b"") for record in log.records("transactions")]
    assert len(sent) == len({record["transaction_id"] for record in sent}) > 0
