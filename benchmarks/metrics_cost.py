"""What counting for the metrics costs the hot path: `python -m benchmarks.metrics_cost [--json FILE]`.

The product's own counting of a committed batch (status, stages, histograms) as `HotPath` does it, on batches
of a full and of a small size, beside building the scores of the same batch: a step of the loop as it is.
"""

import click
import msgspec
import numpy as np

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_library import Applied
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.scores import Score, Stages
from scorer.batch import Batch, Part
from scorer.results import Emitted, Output
from scorer.status import Status

ROUNDS, REPEATS = 400, 7
MOST_US = 0.5
"""What counting may cost, in microseconds a transaction of a full batch."""


class Cost(msgspec.Struct, frozen=True):
    """Microseconds a transaction, least of the repeats."""

    batch: int
    counting_us: float
    building_scores_us: float


class Report(msgspec.Struct, frozen=True):
    """The report; `holds` says whether counting a full batch is within `most_us`."""

    most_us: float
    costs: list[Cost]
    holds: bool


def score(i: int) -> Score:
    """Return a score as the worker builds it."""
    return Score(
        transaction_id=f"bench-{i}",
        event_time_ms=i,
        customer="C0000304",
        terminal="T0000304",
        amount_minor=i,
        currency="EUR",
        source_partition=i % 8,
        source_offset=i,
        source_timestamp_ms=i,
        score=0.25,
        decision="pass",
        threshold=0.5,
        model_version="1",
        feature_set="44df9c1ad927d62b",
        features=[0.0] * 9,
        apply_seq=i,
        duplicate_of=None,
        age_ms=3,
        stale=False,
        stages=Stages(float(i % 50), 4.0, 0.5, 9.0),
    )


def replies(batch: int) -> Applied:
    """Return what the feature store says of a batch of records on time."""
    none = np.zeros(batch, np.bool_)
    numbers = np.arange(batch)
    return Applied(np.zeros((batch, 9), np.float32), numbers, numbers, none, none, none)


def measure(batch: int) -> Cost:
    """Return what a batch of so many records costs."""
    scores = [score(i) for i in range(batch)]
    outputs = [Output("scores", b"", b"", [])] * batch + [Output("alerts", b"", b"", [])] * 5
    emitted = Emitted(scores, outputs)
    part = Part(0, -1, batch - 1, [None] * batch, [])  # type: ignore[list-item]
    taken = Batch([part], [], -1, 0)
    applied = replies(batch)
    probabilities = np.linspace(0, 1, batch, dtype=np.float32)
    status, counting, building = Status(), [], []
    rounds = max(ROUNDS * 1_000 // batch // 10, 20)
    for _ in range(REPEATS):
        began_s = monotonic_s()
        for _ in range(rounds):
            status.count_batch(taken, emitted, probabilities, commit_ms=6.0)
            status.count_features(applied)
        counting.append(monotonic_s() - began_s)
        began_s = monotonic_s()
        for _ in range(rounds):
            [score(i) for i in range(batch)]
        building.append(monotonic_s() - began_s)
    us = 1e6 / rounds / batch
    return Cost(batch, round(min(counting) * us, 3), round(min(building) * us, 3))


@click.command()
@json_option
def main(json_file: str | None) -> None:
    """Measure, print, and end with 1 if counting costs more than it may."""
    costs = [measure(batch) for batch in (1_000, 100, 20)]
    report = Report(MOST_US, costs, costs[0].counting_us <= MOST_US)
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        for cost in costs:
            click.echo(
                f"batch of {cost.batch}: counting {cost.counting_us} us a transaction, "
                f"building its scores {cost.building_scores_us} us"
            )
    raise SystemExit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
