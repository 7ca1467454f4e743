"""The metrics that processes serve at /metrics: one list, from which docs/metrics.md is made."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True):
    """One metric: its full name, kind, what one of it is, what it says, and the labels of its samples."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return meaning and unit, as Prometheus shows them."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning


def _count(name: str, meaning: str, unit: str = "records") -> Metric:
    return Metric(f"fraudstream_scorer_{name}_total", "counter", unit, meaning)


RECORDS = _count("records", "taken from `transactions` and committed, dead letters included")
SCORED = _count("scored", "scores committed")
ALERTS = _count("alerts", "alerts committed")
DEAD_LETTERS = _count("dead_letters", "dead letters committed")
POISON = _count(
    "poison",
    "dead letters that could be read, but made a hop fail or the worker die; among the above",
)
BATCHES = _count("batches", "Kafka transactions committed", "batches")
ABORTED = _count("aborted", "batches that were read again after a failure", "batches")
REDELIVERED = _count("redelivered", "applied to the features before: their stored reply was used")
TRUNCATED = _count(
    "truncated", "later than the lateness of their entity: a window may have lost entries"
)
BEYOND_RETENTION = _count("beyond_retention", "scored, but too late to be kept in the features")
SWAPS = _count("swaps", "versions taken over while running", "swaps")
REBUILDS = _count("rebuilds", "rebuilds of the features that this worker has ended", "rebuilds")
STATE = Metric(
    "fraudstream_scorer_state", "gauge", "", "1 for the state that the worker is in", ("state",)
)
WAITING = Metric(
    "fraudstream_scorer_waiting",
    "gauge",
    "",
    "1 while a server is waited for, by what is the matter: `unreachable` or `writes_refused`",
    ("for",),
)
REBUILD_RECORDS = Metric(
    "fraudstream_scorer_rebuild_records",
    "gauge",
    "records",
    "folded by the rebuild that this worker carries out",
)
REBUILD_WANTED = Metric(
    "fraudstream_scorer_rebuild_records_wanted", "gauge", "records", "of that rebuild in all"
)
SECONDS = Metric(
    "fraudstream_scorer_seconds_total",
    "counter",
    "seconds",
    "spent in each hop of the loop, waiting included",
    ("hop",),
)
STAGE_SECONDS = Metric(
    "fraudstream_scorer_stage_seconds",
    "histogram",
    "seconds",
    "where the time of scores went, from the stages that stand in each score",
    ("stage",),
)
EVENT_TIME = Metric(
    "fraudstream_scorer_event_time_ms",
    "gauge",
    "milliseconds since 1970, UTC",
    "the newest event time read from a partition, at most the time of reading",
    ("partition",),
)
BEHIND = Metric(
    "fraudstream_scorer_behind_ms",
    "gauge",
    "milliseconds of event time",
    "how far a partition is behind the furthest of all workers, as they last told",
    ("partition",),
)
HELD = Metric(
    "fraudstream_scorer_held",
    "gauge",
    "",
    "1 while a partition waits for slower ones",
    ("partition",),
)

SCORER = (
    *(RECORDS, SCORED, ALERTS, DEAD_LETTERS, POISON, BATCHES, ABORTED, REDELIVERED, TRUNCATED),
    *(BEYOND_RETENTION, SWAPS, REBUILDS, STATE, WAITING, REBUILD_RECORDS, REBUILD_WANTED),
    *(SECONDS, STAGE_SECONDS, EVENT_TIME, BEHIND, HELD),
)
"""What a scorer serves, in this order."""


def table(metrics: Iterable[Metric]) -> str:
    """Return the metrics as a table for a page."""
    rows = ["| metric | kind | unit | says |", "|---|---|---|---|"]
    for each in metrics:
        labels = f"{{{', '.join(each.labels)}}}" if each.labels else ""
        rows.append(f"| `{each.name}{labels}` | {each.kind} | {each.unit} | {each.meaning} |")
    return "\n".join(rows)
