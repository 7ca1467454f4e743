"""What the monitor costs a score: `.venv/bin/python -m benchmarks.monitor_cost [--json FILE]`.

On a stack of its own, 88 days of scores by a version whose reference the registry has, 0.5 % of them alerts:
one round of the service reads, decodes, compares and reports them all. That is a catch-up; live traffic, in
smaller batches, is not measured. Beside it, in the same run, the floor: the same records read by the same
client and thrown away.
"""

import time
from collections.abc import Callable

import click
import msgspec
import numpy as np
from confluent_kafka import Producer

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from monitoring.drift import Levels
from monitoring.monitor import Monitor
from verify.bench.model import bench_model, serve
from verify.bench.pipeline import own_stack

SCORES, A_DAY = 300_000, 3_400
WANTED_PER_S = 20_000
START_MS = 19_000 * DAY_MS


class Cost(msgspec.Struct, frozen=True):
    """Scores a second of one process, and its CPU a score in microseconds, all its threads together."""

    per_s: int
    cpu_us: float


class Report(msgspec.Struct, frozen=True):
    """The monitor, which wrote `reports`, beside reading alone; `core_share` is at 20,000 scores a second."""

    monitor: Cost
    floor: Cost
    core_share: float
    reports: int
    holds: bool


def main_report() -> Report:
    """Measure."""
    with own_stack() as settings, TopicReader(settings) as reader:
        features = np.random.default_rng(1).random((10_000, len(NINE.features))).astype(np.float32)
        serve(settings, bench_model(features))
        send(settings, features)
        floor = cost(lambda: records(settings, reader, "scores"))
        monitor = Monitor(settings, Levels())
        whole = cost(lambda: monitor.round(reader))
        reports = records(settings, reader, "monitoring")
    share = whole.cpu_us * WANTED_PER_S / 1e6
    return Report(whole, floor, round(share, 3), reports, whole.per_s > WANTED_PER_S)


def cost(work: Callable[[], object]) -> Cost:
    """Return what `work` took for all scores."""
    began_s, began_cpu_s = monotonic_s(), time.process_time()
    work()
    cpu_s = time.process_time() - began_cpu_s
    return Cost(round(SCORES / (monotonic_s() - began_s)), round(cpu_s / SCORES * 1e6, 2))


def records(settings: Settings, reader: TopicReader, name: str) -> int:
    """Read a whole topic, do nothing with it, and return how many records it has."""
    topic = topic_name(settings.environment, name)
    return sum(map(len, reader.batches(topic, reader.bounds(topic))))


def send(settings: Settings, features: FloatArray) -> None:
    """Produce the scores to the partitions in turn: values as the scorer's, without keys or transactions."""
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap, "linger.ms": 20, "acks": "all"}
    )
    rows = features.tolist()
    topic = topic_name(settings.environment, "scores")
    for i in range(SCORES):
        value = encoded(i, rows[i % len(rows)])
        producer.produce(topic, value, partition=i % settings.partitions)
        if not i % 1_000:
            producer.poll(0)
            while len(producer) > 50_000:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def encoded(i: int, row: list[float]) -> bytes:
    """Return a score as the scorer writes it, 3,400 of them a day."""
    return msgspec.json.encode(
        {
            "v": 1,
            "transaction_id": f"bench-{i:09d}",
            "event_time_ms": START_MS + i * DAY_MS // A_DAY,
            "customer": f"C{i % 5_000:07d}",
            "terminal": f"T{i % 10_000:07d}",
            "amount_minor": 1_299,
            "currency": "EUR",
            "source_partition": i % 8,
            "source_offset": i,
            "source_timestamp_ms": START_MS + i,
            "score": row[0],
            "decision": "alert" if i % 200 == 0 else "pass",
            "threshold": 0.5,
            "model_version": "1",
            "challenger_score": None,
            "feature_set": NINE.hash,
            "features": row,
            "apply_seq": i,
            "duplicate_of": None,
            "age_ms": 12,
            "stale": False,
            "stages": {"waiting": 1.0, "features": 2.0, "model": 0.5, "until_produce": 4.0},
        }
    )


@click.command()
@json_option
def main(json_file: str | None) -> None:
    """Measure, print, and end with 1 if the monitor could not follow 20,000 scores a second."""
    report = main_report()
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        click.echo(
            f"in a catch-up the monitor takes {report.monitor.per_s:,} scores a second, "
            f"{report.monitor.cpu_us} us of CPU each (read alone {report.floor.per_s:,}, "
            f"{report.floor.cpu_us} us): {report.core_share:.0%} of a core at {WANTED_PER_S:,} a second; "
            f"{report.reports} reports"
        )
    raise SystemExit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
