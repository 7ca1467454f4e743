"""Records that can be read and yet stop everything: found alone, made dead letters, nothing else lost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from kafka import KafkaProducer
from redis import Redis

from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_TRANSACTION_BYTES, topic_name
from tests.integration.test_exactly_once import make_champion, trained
from tests.processes import Worker, faster, run, wait_until, worker
from verify.ledger import Log, count

RAISES = "the model raises at a poisonous amount"
DECODE_DIES = "decoding a deadly record ends the process"
FEATURES_DIE = "the features of a deadly record end the process"


def transaction(number: int, **fields: object) -> bytes:
    """Return a transaction; a negative number would be no amount."""
    record: dict[str, object] = {
        "v": 1,
        "transaction_id": f"t{number}",
        "event_time_ms": 1_532_476_800_000 + number * 1000,
        "kind": "purchase",
        "amount_minor": 1_000 + number,
        "currency": "EUR",
        "entities": {"customer": f"c{number % 50}", "terminal": f"m{number % 20}"},
    }
    return json.dumps(record | fields).encode()


def send(settings: Settings, values: list[bytes], *, partition: int = 0) -> None:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "enable.idempotence": True,
            "message.max.bytes": MAX_TRANSACTION_BYTES,
        }
    )
    topic = topic_name(settings.environment, "transactions")
    for value in values:
        producer.produce(topic, value, b"c1", partition)
    assert producer.flush(30) == 0


def champion(settings: Settings) -> None:
    random = np.random.default_rng(1)
    features = random.random((3_000, 9)).astype(np.float32)
    make_champion(settings, trained(features, features[:, 0] > 0.97))


def caught_up(settings: Settings, log: Log) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


def ids(log: Log) -> list[str]:
    return [json.loads(each.value or b"")["transaction_id"] for each in log.records("scores")]


def letters(log: Log) -> list[tuple[bytes | None, dict[str, bytes]]]:
    return [
        (each.value, {name: value or b"" for name, value in each.headers})
        for each in log.records("dead-letters")
    ]


def check(settings: Settings, log: Log, *, scored: int, dead: int) -> None:
    ledger = count(log, f"{settings.environment}.scorer")
    assert ledger.balanced
    assert (ledger.scored, ledger.dead_letters, ledger.waiting) == (scored, dead, 0)


@contextmanager
def running(settings: Settings, log: Log, tmp_path: Path, *changes: str) -> Iterator[Worker]:
    """Run a worker until everything is handled; it must live that long, and end well."""
    with worker(settings, tmp_path / "scorer.log", changes=changes) as one:
        wait_until(
            lambda: one.process.poll() is not None or caught_up(settings, log),
            timeout_s=60,
            what="all handled",
        )
        assert one.process.poll() is None, one.said()[-2_000:]
        yield one
        assert one.stop() == 0


def test_records_that_make_the_model_raise_are_found_alone(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    champion(topics)
    poison = [transaction(n, amount_minor=66_600) for n in (7, 300, 301)]
    stream = [transaction(n) for n in range(400)]
    for place, value in zip((7, 300, 301), poison, strict=True):
        stream[place] = value
    send(topics, stream)
    with running(topics, log, tmp_path, RAISES):
        send(topics, [transaction(n) for n in range(400, 420)])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="the rest")
    check(topics, log, scored=417, dead=3)
    found = letters(log)
    assert [value for value, _ in found] == poison
    assert {headers["error_kind"] for _, headers in found} == {b"poison"}
    assert all(b"hop score" in headers["error_message"] for _, headers in found)
    assert all("not_applied" not in headers for _, headers in found), "the features have them"


@pytest.mark.parametrize("partitions", [1])
def test_a_feature_store_that_is_away_at_a_burial_is_waited_for(
    topics: Settings, log: Log, tmp_path: Path, server: Redis
) -> None:
    odd = {"customer": "odd", "terminal": "m1"}
    send(topics, [transaction(0, entities=odd)])
    away = "the feature store is away before and after a burial"
    with running(topics, log, tmp_path, away) as one:
        prefix = topics.environment.encode()
        (key,) = [
            each for each in server.scan_iter(count=1000) if prefix in each and b"odd" in each
        ]
        server.set(key, b"no packed string")
        send(topics, [transaction(50, entities=odd), *[transaction(n) for n in range(1, 9)]])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="the rest")
        assert one.said().count("a planted absence; partitions are paused") == 2
        assert "lack records" not in one.said(), "nothing has to be rebuilt"
    check(topics, log, scored=9, dead=1)


def test_a_model_that_raises_always_makes_few_dead_letters_and_ends_the_worker(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    champion(topics)
    send(topics, [transaction(n) for n in range(400)])
    settings = faster(topics, poison_in_a_row=4)
    with worker(settings, tmp_path / "scorer.log", changes=["the model raises always"]) as one:
        assert one.process.wait(60) == 3
        assert "fault of the deployment" in one.said()
        assert "a planted fault" in one.said()
    assert len(letters(log)) == 4
    with running(topics, log, tmp_path):
        pass
    check(topics, log, scored=396, dead=4)


@pytest.mark.parametrize("partitions", [1])
def test_a_record_whose_features_fail_is_left_out_of_a_rebuild_too(
    topics: Settings, log: Log, tmp_path: Path, server: Redis
) -> None:
    send(topics, [transaction(0)])
    before = set(server.scan_iter(count=1000))
    with running(topics, log, tmp_path) as one:
        send(topics, [transaction(1, entities={"customer": "odd", "terminal": "m1"})])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        (odd,) = [key for key in set(server.scan_iter(count=1000)) - before if is_odd(server, key)]
        whole = server.dump(odd) or b""
        server.set(odd, b"no packed string")
        send(topics, [transaction(n) for n in range(2, 50)])
        send(topics, [transaction(50, entities={"customer": "odd", "terminal": "m1"})])
        send(topics, [transaction(n) for n in range(51, 90)])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="past the odd one")
        server.delete(odd)
        server.restore(odd, 0, whole)
        send(topics, [transaction(90, entities={"customer": "odd", "terminal": "m1"})])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="the odd one again")
        forget(server, topics)
        send(topics, [transaction(91, entities={"customer": "odd", "terminal": "m1"})])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="rebuilt and scored")
        assert "are whole again" in one.said()
    last = [json.loads(each.value or b"") for each in log.records("scores")][-1]
    clean_mean = (10.01 + 10.90 + 53) / 3
    assert last["features"][1] == pytest.approx(10.91 / clean_mean), "without the one left out"
    ((_, headers),) = letters(log)
    assert headers["error_kind"] == b"poison"
    assert b"hop features" in headers["error_message"]
    assert headers["not_applied"] == b"all"
    check(topics, log, scored=91, dead=1)


def forget(server: Redis, settings: Settings) -> None:
    """Lose the features of the environment."""
    prefix = settings.environment.encode()
    server.delete(*[key for key in server.scan_iter(count=1000) if prefix in key])


def is_odd(server: Redis, key: bytes) -> bool:
    return b"odd" in key


def set_limit(settings: Settings, topic: str, size: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    place = ConfigResource(
        ResourceType.TOPIC,
        topic_name(settings.environment, topic),
        incremental_configs=[entry],
    )
    for done in admin.incremental_alter_configs([place]).values():
        done.result()


LONG = {"transaction_id": "é" * 64, "entities": {"customer": "ü" * 64, "terminal": "ö" * 64}}


def test_a_score_over_the_broker_s_limit_becomes_a_dead_letter_and_small_ones_go_on(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    set_limit(topics, "scores", 1_000)
    send(topics, [transaction(n) for n in range(200)])
    send(topics, [transaction(200, **LONG)])
    send(topics, [transaction(n) for n in range(201, 300)])
    with running(topics, log, tmp_path):
        pass
    ((_, headers),) = letters(log)
    assert headers["error_kind"] == b"score_too_large"
    assert b"max.message.bytes is 1000" in headers["error_message"]
    check(topics, log, scored=299, dead=1)


def test_a_limit_that_is_lowered_while_a_worker_runs_is_heeded(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    with running(topics, log, tmp_path):
        send(topics, [transaction(n) for n in range(100)])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="scored")
        set_limit(topics, "scores", 1_000)
        send(topics, [transaction(100, **LONG)])
        send(topics, [transaction(n) for n in range(101, 300)])
        wait_until(lambda: caught_up(topics, log), timeout_s=30, what="past the long one")
    assert [headers["error_kind"] for _, headers in letters(log)] == [b"score_too_large"]
    check(topics, log, scored=299, dead=1)


def test_a_dead_letter_that_is_cut_to_its_topic_s_limit_balances(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    set_limit(topics, "dead-letters", 1_048_588)  # Kafka's default
    send(topics, [transaction(0), b"0" * 2_000_000, transaction(2)])
    with running(topics, log, tmp_path):
        pass
    ((value, headers),) = letters(log)
    assert len(value or b"") < 1_048_588
    assert headers["original_bytes"] == b"2000000"
    check(topics, log, scored=2, dead=1)
    watched = run(topics, "ledger", "--watch", "--for", "1")
    assert (watched.returncode, watched.stderr) == (0, "")


class RawName(str):
    """A header name whose bytes are no UTF-8; kafka-python writes what `encode` returns."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"odd\xff"


def test_a_header_whose_name_is_not_utf_8_becomes_a_dead_letter(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    producer = KafkaProducer(bootstrap_servers=topics.kafka_bootstrap)
    topic = topic_name(topics.environment, "transactions")
    for number in range(300):
        name = RawName("x") if number == 150 else "fine"
        producer.send(topic, transaction(number), b"c1", [(name, b"1"), ("more", b"2")], 0)
    producer.close()
    with running(topics, log, tmp_path):
        pass
    assert sorted(ids(log)) == sorted(f"t{n}" for n in range(300) if n != 150)
    ((value, headers),) = letters(log)
    assert value == transaction(150)
    assert headers["error_kind"] == b"unreadable_header"
    assert b"odd\\xff" in headers["error_message"]


def restart_until(settings: Settings, log: Log, file: Path, *changes: str, most: int = 12) -> int:
    """Start a worker again whenever it dies, as a supervisor does; return how many died."""
    for deaths in range(most):
        with worker(settings, file, changes=changes) as one:
            wait_until(
                lambda: one.process.poll() is not None or caught_up(settings, log),
                timeout_s=60,
                what="dead or done",
            )
            if one.process.poll() is None:
                assert one.stop() == 0
                return deaths
            assert one.process.returncode == -11, one.said()[-2_000:]
            assert "Fatal Python error: Segmentation fault" in one.said()
    raise AssertionError(f"still dying after {most} starts: {file.read_text()[-3_000:]}")


@pytest.mark.parametrize(
    "change", [DECODE_DIES, pytest.param(FEATURES_DIE, marks=pytest.mark.proof)]
)
def test_a_record_that_ends_the_process_becomes_a_dead_letter_after_some_restarts(
    change: str, topics: Settings, log: Log, tmp_path: Path
) -> None:
    stream = [transaction(n) for n in range(600)]
    stream[333] = transaction(333, transaction_id="deadly-1")
    send(topics, stream)
    deaths = restart_until(topics, log, tmp_path / "scorer.log", change)
    assert 3 <= deaths <= 8
    ((value, headers),) = letters(log)
    assert value == stream[333]
    assert headers["error_kind"] == b"deadly"
    assert headers["not_applied"] == b"all"
    check(topics, log, scored=599, dead=1)


@pytest.mark.proof
def test_where_every_record_ends_the_process_only_few_become_dead_letters(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    send(topics, [transaction(n) for n in range(20)])
    settings = faster(topics, poison_in_a_row=1)
    ends = []
    for _ in range(12):
        with worker(
            settings, tmp_path / "scorer.log", changes=["decoding any record ends the process"]
        ) as one:
            ends.append(one.process.wait(60))
        if ends[-1] != -11:
            break
    assert ends[-1] == 3
    assert "fault of the deployment" in (tmp_path / "scorer.log").read_text()
    assert len(letters(log)) == 1
    with running(topics, log, tmp_path):
        pass
    check(topics, log, scored=19, dead=1)
