"""Bad records become dead letters with bytes, place and reason; the stream goes on, nothing is lost."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_TRANSACTION_BYTES, topic_name
from tests.processes import run, wait_until, worker
from verify.ledger import Log, count

PARTITION_UA = -1
"""librdkafka's word for: by the key."""

GOOD: dict[str, object] = {
    "v": 1,
    "transaction_id": "t1",
    "event_time_ms": 1_532_476_800_000,
    "kind": "purchase",
    "amount_minor": 1234,
    "currency": "EUR",
    "entities": {"customer": "c1", "terminal": "m1"},
}


def good(name: str) -> bytes:
    return json.dumps(GOOD | {"transaction_id": name}).encode()


def wrong(**fields: object) -> bytes:
    return json.dumps(GOOD | fields).encode()


BAD: dict[str, tuple[bytes | None, str, str]] = {
    "malformed": (b'{"v": 1,', "malformed_json", "not valid JSON"),
    "missing": (
        json.dumps({k: v for k, v in GOOD.items() if k != "currency"}).encode(),
        "invalid_field",
        "currency",
    ),
    "type": (wrong(transaction_id=7), "invalid_field", "$.transaction_id"),
    "nan": (wrong(amount_minor=float("nan")), "malformed_json", "not valid JSON"),
    "infinite": (wrong(attributes={"x": float("inf")}), "malformed_json", "not valid JSON"),
    "time": (wrong(event_time_ms=99), "invalid_field", "$.event_time_ms"),
    "amount": (wrong(amount_minor=12.34), "invalid_field", "$.amount_minor"),
    "huge": (b"x" * 10_000_000, "too_large", "10000000 bytes"),
    "null": (None, "null_value", "no value"),
    "version": (wrong(v=99), "unknown_version", "schema version 99"),
}


def send(
    settings: Settings,
    values: list[bytes | None],
    *,
    key: bytes | None = b"c1",
    partition: int = PARTITION_UA,
) -> None:
    """Send values to `transactions`, to the partition of their key unless one is named."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "message.max.bytes": MAX_TRANSACTION_BYTES,
            "enable.idempotence": True,  # or a large record changes places with a small one
            "partitioner": "murmur2_random",
        }
    )
    topic = topic_name(settings.environment, "transactions")
    for value in values:
        producer.produce(topic, value, key, partition, headers={"source": b"test"})
    assert producer.flush(30) == 0


def all_done(settings: Settings, log: Log) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


def test_each_kind_of_bad_record_is_a_dead_letter_and_the_stream_goes_on(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    values: list[bytes | None] = [good("first")]
    for number, (value, _, _) in enumerate(BAD.values()):
        values += [value, good(f"after-{number}")]
    send(topics, values)
    with worker(topics, tmp_path / "scorer.log") as running:
        wait_until(lambda: all_done(topics, log), timeout_s=60, what="all handled")
        assert running.stop() == 0
    letters = [(record.value, dict(record.headers)) for record in log.records("dead-letters")]
    ledger = count(log, f"{topics.environment}.scorer")

    assert len(letters) == len(BAD)
    for (value, kind, says), (bytes_kept, headers) in zip(BAD.values(), letters, strict=True):
        assert bytes_kept == value
        assert (headers["error_kind"] or b"").decode() == kind
        assert says in (headers["error_message"] or b"").decode()
        assert headers["source_topic"] == b"transactions"
        assert values[int(headers["source_offset"] or b"")] == value
        assert headers["source"] == b"test"
    assert ledger.balanced
    assert (ledger.scored, ledger.dead_letters) == (len(BAD) + 1, len(BAD))


@pytest.mark.parametrize("partitions", [1])
def test_a_stream_of_dead_letters_stops_the_worker(topics: Settings, tmp_path: Path) -> None:
    send(topics, [b"not a transaction"] * 1_200)
    with worker(topics, tmp_path / "scorer.log") as running:
        assert running.process.wait(60) == 3
        assert "wrong topic or schema" in running.said()


def test_servers_that_do_not_answer_are_named_with_what_to_try(settings: Settings) -> None:
    for field, address in (
        ("kafka_bootstrap", "127.0.0.1:1"),
        ("redis_url", "redis://127.0.0.1:1/0"),
        ("mlflow_url", "http://127.0.0.1:1"),
    ):
        run(settings, "topics", "create")
        wrongly = run(
            settings,
            "--set",
            f"{field}={address}",
            "--set",
            "connect_timeout_ms=2000",
            "scorer",
            timeout_s=30,
        )
        assert wrongly.returncode == 1, wrongly.stderr
        last = wrongly.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert address.removeprefix("redis://").removesuffix("/0") in last
        assert field in last.lower(), "the setting to change is named"


def test_missing_topics_are_named_with_the_command_that_makes_them(settings: Settings) -> None:
    done = run(settings, "scorer", timeout_s=30)
    assert done.returncode == 3
    assert "fraudstream topics create" in done.stderr
