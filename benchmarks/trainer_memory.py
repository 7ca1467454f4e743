"""What a training takes of memory, in bytes a score: `python -m benchmarks.trainer_memory [--json FILE]`.

Made scores go the trainer's own way, from bytes to the sealed model, without servers. Each training is a
process of its own; bytes a score are the difference of the peaks of a large one and a small one. The last
training reads three times as much as the large one, of which its window leaves as much to train on.
"""

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import click
import msgspec
import numpy as np

from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.score_log import ScoreColumns
from fraudstream.core.feature_set import DAY_MS, NINE
from trainer.build import build, newest, window
from trainer.options import TrainingOptions
from trainer.pipeline import Collected, Steps, learn, validate

T0 = 1_532_476_800_000
SMALL, LARGE, BATCH = 100_000, 300_000, 10_000
DAYS = 30
CUSTOMERS = 5_000
FRAUD_SHARE = 0.01
ALERTS_PER_1000 = 5.0


class Peak(msgspec.Struct, frozen=True):
    """One training: scores read and kept, bytes of the columns, of the process by then and in all."""

    read: int
    kept: int
    column_bytes: int
    reading_bytes: int
    peak_bytes: int


class Report(msgspec.Struct, frozen=True):
    """Bytes a score; `longer_log`: the peak with a log of three times the window, by that with the window."""

    columns: float
    reading: float
    training: float
    longer_log: float
    peaks: list[Peak]


def scores(count: int, per_day: int) -> Iterator[list[bytes]]:
    """Yield batches of as many records of the topic `scores`, in order of event time."""
    random = np.random.default_rng(5)
    for first in range(0, count, BATCH):
        rows = random.lognormal(0, 1.5, (BATCH, len(NINE.features))).astype(np.float32).tolist()
        customers = random.integers(0, CUSTOMERS, BATCH).tolist()
        yield [
            msgspec.json.encode(
                {
                    "transaction_id": f"1908e380-{number:09d}",
                    "event_time_ms": T0 + number * DAY_MS // per_day,
                    "customer": f"C{customer:07d}",
                    "feature_set": NINE.hash,
                    "features": features,
                }
            )
            for number, customer, features in zip(
                range(first, first + BATCH), customers, rows, strict=True
            )
        ]


def train(count: int, per_day: int) -> Peak:
    """Train on the newest `DAYS` of `count` scores, all of them mature, and return what that took."""
    as_of_ms = T0 + (count - 1) * DAY_MS // per_day + NINE.label_delay_ms
    needed = partial(window, as_of_ms=as_of_ms, label_delay_ms=NINE.label_delay_ms, days=DAYS)
    columns = ScoreColumns(NINE, needed)
    for batch in scores(count, per_day):
        columns.add(batch)
    log = columns.log()
    reading = _peak_bytes()
    labels = {
        f"1908e380-{number:09d}": "fraud" for number in range(0, count, round(1 / FRAUD_SHARE))
    }
    times = {"as_of_ms": as_of_ms, "label_delay_ms": NINE.label_delay_ms}
    mature = build(log, labels, **times, days=DAYS)
    collected = Collected({}, log, mature, newest(log, **times), as_of_ms)
    options, steps = TrainingOptions(feature_set=NINE, actor="benchmark", days=DAYS), Steps(_quiet)
    validated = validate(collected, options, steps=steps, alerts_per_1000=ALERTS_PER_1000)
    learn(collected, validated, options, steps=steps, alerts_per_1000=ALERTS_PER_1000)
    return Peak(log.read, len(mature.labels), columns.nbytes, reading, _peak_bytes())


def _quiet(_: str) -> None:
    """Say nothing."""


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report_of(small: Peak, large: Peak, longer: Peak) -> Report:
    """Return what the peaks say of a score."""
    more = large.kept - small.kept
    return Report(
        columns=round(large.column_bytes / large.kept, 1),
        reading=round((large.reading_bytes - small.reading_bytes) / more, 1),
        training=round((large.peak_bytes - small.peak_bytes) / more, 1),
        longer_log=round(longer.peak_bytes / large.peak_bytes, 2),
        peaks=[small, large, longer],
    )


@click.command()
@json_option
def main(json_file: str | None) -> None:
    """Measure and print."""
    wanted = [(SMALL, SMALL // DAYS), (LARGE, LARGE // DAYS), (3 * LARGE, LARGE // DAYS)]
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        report = report_of(*(pool.submit(train, *each).result() for each in wanted))
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        for peak in report.peaks:
            click.echo(
                f"{peak.read:,} scores read, {peak.kept:,} in the window: "
                f"{peak.peak_bytes / 2**20:.0f} MiB at most, {peak.reading_bytes / 2**20:.0f} while reading"
            )
        click.echo(
            f"bytes a score of the window: {report.columns} its columns, {report.reading} the peak of "
            f"reading, {report.training} of all of the training; with a log three times as long "
            f"{report.longer_log} of the peak"
        )


if __name__ == "__main__":
    main()
