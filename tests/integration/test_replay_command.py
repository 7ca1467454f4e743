"""`fraudstream replay` as a process: killed, stopped, cut, and answering wrong arguments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from kafka import KafkaConsumer, TopicPartition

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from producer.sources import event_times
from tests.replay_log import (
    assert_each_row_once_in_order,
    assert_labels_precede,
    read_all,
)
from tests.small_source import HOUR_MS, small_source

four_partitions = pytest.mark.parametrize("partitions", [4])


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.parquet"
    pq.write_table(small_source(rows=6_000).table, path)
    return path


def command(settings: Settings, *arguments: str | Path) -> "subprocess.Popen[str]":
    own = {
        "FRAUDSTREAM_ENVIRONMENT": settings.environment,
        "FRAUDSTREAM_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "FRAUDSTREAM_STATE_DIR": settings.state_dir,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "fraudstream.cli", "replay", *map(str, arguments)],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_offset(consumer: KafkaConsumer, settings: Settings) -> int:
    name = topic_name(settings.environment, "transactions")
    places = [TopicPartition(name, p) for p in range(settings.partitions)]
    return sum(consumer.end_offsets(places).values())


def kill_after(
    process: "subprocess.Popen[str]", settings: Settings, records: int, number: int
) -> None:
    """Send the signal once the log has grown by so many records."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    try:
        before = end_offset(consumer, settings)
        deadline = time.monotonic() + 30
        while end_offset(consumer, settings) < before + records and process.poll() is None:
            assert time.monotonic() < deadline, "the replay sent nothing"
        process.send_signal(number)
    finally:
        consumer.close()


@four_partitions
@pytest.mark.parametrize(
    ("client", "rate"),
    [pytest.param("kafka-python", 2_000, marks=pytest.mark.proof), ("confluent", 20_000)],
)
def test_killed_at_random_moments_it_goes_on_without_loss_or_repetition(
    topics: Settings, tmp_path: Path, client: str, rate: int
) -> None:
    rows = rate * 3
    pq.write_table(small_source(rows=rows).table, tmp_path / "small.parquet")
    arguments = (tmp_path / "small.parquet", "--client", client, "--rate", str(rate), "--json", "-")
    rng = random.Random(rate)
    killed = 0
    for _ in range(6):
        process = command(topics, *arguments)
        kill_after(process, topics, rng.randrange(1, rate // 20), signal.SIGKILL)
        process.communicate(timeout=30)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 5
    process = command(topics, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    stats = msgspec.json.decode(output)
    assert stats["already_sent"] > 0
    assert stats["already_sent"] + stats["sent"] == rows
    records = read_all(topics, "transactions")
    assert_each_row_once_in_order(records, range(rows))
    assert assert_labels_precede(topics, records) > rows // 2


def test_stopped_by_sigterm_it_says_how_far_it_came(topics: Settings, source_file: Path) -> None:
    process = command(topics, source_file, "--rate", "500", "--json", "-")
    kill_after(process, topics, 100, signal.SIGTERM)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 143, errors
    stats = msgspec.json.decode(output)
    assert (stats["finished"], stats["undelivered"]) == (False, 0)
    assert stats["sent"] == len(read_all(topics, "transactions")) >= 100


def test_from_to_and_limit_cut_without_moving_row_numbers(
    topics: Settings, source_file: Path
) -> None:
    begin_ms = int(event_times(pq.read_table(source_file))[0])
    bounds = [(begin_ms + hours * HOUR_MS) / 1000 for hours in (10, 100)]
    texts = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) for moment in bounds]
    cut = (source_file, "--from", texts[0], "--to", texts[1], "--unpaced", "--json", "-")
    for extra in (("--limit", "100"), ()):
        process = command(topics, *cut, *extra)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    times = event_times(pq.read_table(source_file))
    inside = [i for i, t in enumerate(times) if bounds[0] * 1000 <= t < bounds[1] * 1000]
    records = read_all(topics, "transactions")
    assert_each_row_once_in_order(records, range(inside[0], inside[-1] + 1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", "5", "--unpaced"), "choose one of --speed, --rate and --unpaced"),
        (("--speed", "quick"), "60x"),
        (("--from", "yesterday"), "ISO date"),
        (("--rate", "0"), "--rate"),
        (("--generate", "seed"), "seed=7,days=30"),
    ],
)
def test_a_wrong_argument_is_answered_before_anything_is_sent(
    settings: Settings, arguments: tuple[str, ...], says: str
) -> None:
    process = command(settings, *arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert says in errors
    assert "Traceback" not in errors
