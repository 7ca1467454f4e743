"""What counting for the metrics costs the hot path: `python -m benchmarks.metrics_cost [--json FILE]`.

The product's own counting of a committed batch (status, stages, histograms, the timer of each hop) as
`HotPath` does it, on batches of a full and of smaller sizes, beside building the scores of the same batch: a
step of the loop as it is.
"""

from types import SimpleNamespace
from typing import Any

import click
import msgspec
import numpy as np

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_library import Applied
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.scores import Score, Stages
from scorer.batch import Batch, Part
from scorer.hot_path import HotPath
from scorer.results import Emitted, Output
from scorer.status import Status

RECORDS, REPEATS = 10_000, 60
"""Many short repeats: the least of them had the core for itself, whatever else runs on the machine."""
SIZES = (1_000, 100, 20)
"""A full batch, and what comes together at lower rates."""
HOPS = ("poll", "decode", "features", "score", "emit", "commit")
MOST_US = 0.5
"""What counting may cost, in microseconds a transaction, in batches of each of these sizes."""


class Cost(msgspec.Struct, frozen=True):
    """Microseconds a transaction, and a batch in all; least of the repeats."""

    batch: int
    counting_us: float
    counting_us_a_batch: float
    building_scores_us: float


class Report(msgspec.Struct, frozen=True):
    """The report; `holds` says whether counting is within `most_us` in batches of every size."""

    most_us: float
    costs: list[Cost]
    within: list[int]
    above: list[int]
    holds: bool

    def sentence(self) -> str:
        """Return for which batch sizes the bound holds, and for which it does not."""
        within = f"batches of {_listed(self.within)}" if self.within else "none"
        above = f"; above it: {_listed(self.above)}" if self.above else ""
        return f"within {self.most_us} us a transaction: {within}{above}"


def report_of(costs: list[Cost]) -> Report:
    """Return the costs with what they say of the bound."""
    within = [cost.batch for cost in costs if cost.counting_us <= MOST_US]
    above = [cost.batch for cost in costs if cost.counting_us > MOST_US]
    return Report(MOST_US, costs, within, above, holds=not above)


def _listed(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes))


def score(i: int) -> Score:
    """Return a score as the worker builds it."""
    return Score(
        1,
        f"bench-{i}",
        i,
        "C0000304",
        "T0000304",
        i,
        "EUR",
        i % 8,
        i,
        i,
        0.25,
        "pass",
        0.5,
        "1",
        None,
        "44df9c1ad927d62b",
        [0.0] * 9,
        i,
        None,
        3,
        False,
        Stages(float(i % 50), 4.0, 0.5, 9.0),
    )


def replies(batch: int) -> Applied:
    """Return what the feature store says of a batch of records on time."""
    none = np.zeros(batch, np.bool_)
    numbers = np.arange(batch)
    return Applied(np.zeros((batch, 9), np.float32), numbers, numbers, none, none, none)


def _nothing() -> None:
    """Take the time of nothing."""


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
    path: Any = SimpleNamespace(status=status, _last_ms={})
    rounds = RECORDS // batch
    for _ in range(REPEATS):
        began_s = monotonic_s()
        for _ in range(rounds):
            for hop in HOPS:
                HotPath._timed(path, hop, _nothing)  # noqa: SLF001 - the loop's own timer, without a loop
            status.count_batch(taken, emitted, probabilities, commit_ms=6.0)
            status.count_features(applied)
        counting.append(monotonic_s() - began_s)
        began_s = monotonic_s()
        for _ in range(rounds):
            [score(i) for i in range(batch)]
        building.append(monotonic_s() - began_s)
    us = 1e6 / rounds / batch
    return Cost(
        batch=batch,
        counting_us=round(min(counting) * us, 3),
        counting_us_a_batch=round(min(counting) * us * batch, 1),
        building_scores_us=round(min(building) * us, 3),
    )


@click.command()
@json_option
def main(json_file: str | None) -> None:
    """Measure, print, and end with 1 if counting costs more than it may in batches of any size."""
    report = report_of([measure(batch) for batch in SIZES])
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        for cost in report.costs:
            click.echo(
                f"batch of {cost.batch}: counting {cost.counting_us} us a transaction "
                f"({cost.counting_us_a_batch} us a batch), building its scores {cost.building_scores_us} us"
            )
        click.echo(report.sentence())
    raise SystemExit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
