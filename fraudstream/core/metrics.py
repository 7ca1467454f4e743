"""The metrics that processes serve at /metrics: one list, from which docs/metrics.md is made."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from fraudstream.core.errors import DEAD_LETTER_KINDS
from fraudstream.core.health import WAITS

Kind = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True):
    """One metric: its full name, kind, what one of it is, what it says, and the labels of its samples."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    begins_with: tuple[str, ...] = ()
    """Values of a counter's label that are there from the start, at 0: else no rule sees the first one."""
    edges: tuple[float, ...] = ()
    """Upper edges of a histogram; none where the service counts by itself, as the scorer does."""

    @property
    def text(self) -> str:
        """Return meaning and unit, as Prometheus shows them."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning


def _count(
    name: str,
    meaning: str,
    unit: str = "records",
    labels: tuple[str, ...] = (),
    begins_with: tuple[str, ...] = (),
) -> Metric:
    return Metric(f"fraudstream_{name}_total", "counter", unit, meaning, labels, begins_with)


def _gauge(name: str, meaning: str, unit: str = "", labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"fraudstream_{name}", "gauge", unit, meaning, labels)


def _histogram(
    name: str,
    meaning: str,
    unit: str,
    labels: tuple[str, ...] = (),
    edges: tuple[float, ...] = (),
) -> Metric:
    return Metric(f"fraudstream_{name}", "histogram", unit, meaning, labels, edges=edges)


def _state(service: str) -> Metric:
    meaning = "1 for the state that the service is in (words: fraudstream/core/health.py)"
    return _gauge(f"{service}_state", meaning, labels=("state",))


RECORDS = _count("scorer_records", "taken from `transactions` and committed, dead letters included")
SCORED = _count("scorer_scored", "scores committed")
ALERTS = _count("scorer_alerts", "alerts committed; their rate is this by `scored`")
DEAD_LETTERS = _count(
    "scorer_dead_letters",
    "dead letters committed, by kind",
    labels=("kind",),
    begins_with=DEAD_LETTER_KINDS,
)
POISON = _count(
    "scorer_poison",
    "dead letters that could be read, but made a hop fail or the worker die; among the above",
)
BATCHES = _count("scorer_batches", "Kafka transactions committed", "batches")
ABORTED = _count("scorer_aborted", "batches that were read again after a failure", "batches")
REDELIVERED = _count(
    "scorer_redelivered", "applied to the features before: their stored reply was used"
)
TRUNCATED = _count(
    "scorer_truncated", "later than the lateness of their entity: a window may have lost entries"
)
BEYOND_RETENTION = _count(
    "scorer_beyond_retention", "scored, but too late to be kept in the features"
)
SWAPS = _count("scorer_swaps", "versions taken over while running", "swaps")
REBUILDS = _count(
    "scorer_rebuilds", "rebuilds of the features that this worker has ended", "rebuilds"
)
RESTARTS = _gauge(
    "scorer_restarts",
    "starts of this slot before this one, since its state folder is",
    "starts",
    ("slot",),
)
STATE = _state("scorer")
WAITING = _gauge(
    "scorer_waiting",
    "1 while a server is waited for, else 0: "
    + ", ".join(f"`{what}` ({why})" for what, why in WAITS.items()),
    labels=("for",),
)
MODEL = _gauge(
    "scorer_model", "1 for the version that serves; absent without a model", labels=("version",)
)
REBUILD_RECORDS = _gauge(
    "scorer_rebuild_records", "folded by the rebuild that this worker carries out", "records"
)
REBUILD_WANTED = _gauge("scorer_rebuild_records_wanted", "of that rebuild in all", "records")
SECONDS = _count(
    "scorer_seconds", "spent in each hop of the loop, waiting included", "seconds", ("hop",)
)
STAGE_SECONDS = _histogram(
    "scorer_stage_seconds",
    "where the time of scores went, from the stages that stand in each score",
    "seconds",
    ("stage",),
)
BATCH_RECORDS = _histogram(
    "scorer_batch_records", "size of the committed batches, dead letters included", "records"
)
COMMIT_SECONDS = _histogram(
    "scorer_commit_seconds", "a batch's Kafka transaction, from its begin to its commit", "seconds"
)
SCORES = _histogram("scorer_score", "scores that the model gave", "score")
FEATURE_CALLS = _count(
    "scorer_feature_calls", "made to the server of the features", "calls", ("feature_set",)
)
FEATURE_MEMORY = _gauge(
    "scorer_feature_memory_bytes",
    "in use by the server of the features, as it last told (once a second at work)",
    "bytes",
)
FEATURE_STATE = _gauge(
    "scorer_feature_state",
    "1 for the phase of each live set's state, as this worker last read it",
    labels=("feature_set", "phase"),
)
LAG = _gauge(
    "scorer_lag",
    "not committed yet, up to the end of the partition as Kafka last told it",
    "records",
    ("partition",),
)
EVENT_TIME = _gauge(
    "scorer_event_time_ms",
    "the newest event time read from a partition, at most the time of reading",
    "milliseconds since 1970, UTC",
    ("partition",),
)
BEHIND = _gauge(
    "scorer_behind_ms",
    "how far a partition is behind the furthest of all workers, as they last told",
    "milliseconds of event time",
    ("partition",),
)
HELD = _gauge("scorer_held", "1 while a partition waits for slower ones", labels=("partition",))

SCORER = (
    *(RECORDS, SCORED, ALERTS, DEAD_LETTERS, POISON, BATCHES, ABORTED, REDELIVERED, TRUNCATED),
    *(BEYOND_RETENTION, SWAPS, REBUILDS, RESTARTS, STATE, WAITING, MODEL, REBUILD_RECORDS),
    *(REBUILD_WANTED, SECONDS, STAGE_SECONDS, BATCH_RECORDS, COMMIT_SECONDS, SCORES),
    *(FEATURE_CALLS, FEATURE_MEMORY, FEATURE_STATE, LAG, EVENT_TIME, BEHIND, HELD),
)
"""What a scorer serves, in this order."""

REPLAY_STATE = _state("producer")
REPLAY_SENT = _count("producer_sent", "transactions sent by this run")
REPLAY_LABELS = _count("producer_labels", "labels sent by this run")
REPLAY_ROWS = _gauge("producer_rows", "of the plan in all", "rows")
REPLAY_POSITION = _gauge(
    "producer_position", "of the plan that are sent, by this run or before", "rows"
)
REPLAY_LATE = _gauge("producer_late_seconds", "how late the last row was sent", "seconds")
REPLAY_EVENT_TIME = _gauge(
    "producer_event_time_ms", "event time of the last row sent", "milliseconds since 1970, UTC"
)
PRODUCER = (
    *(REPLAY_STATE, REPLAY_SENT, REPLAY_LABELS, REPLAY_ROWS, REPLAY_POSITION, REPLAY_LATE),
    REPLAY_EVENT_TIME,
)
"""What a replay serves with `--metrics-port`."""

TRAINER_STATE = _state("trainer")
OUTCOMES = {
    "promoted": "",
    "refused": "by the gate",
    "held": "since somebody went back to an earlier version",
    "too_little": "to learn from",
    "failed": "(also where a server broke it off twice in a row)",
    "nothing_new": "since the last",
}
TRAININGS = _count(
    "trainer_trainings",
    "ended rounds, by outcome: "
    + ", ".join(f"`{each}` {why}".strip() for each, why in OUTCOMES.items()),
    "trainings",
    ("outcome",),
    begins_with=tuple(OUTCOMES),
)
TRAINING_SECONDS = _gauge("trainer_last_seconds", "the last training took", "seconds")
TRAINING_ENDED = _gauge(
    "trainer_last_end_seconds", "when the last training ended", "seconds since 1970, UTC"
)
TRAINER_MODEL = _gauge(
    "trainer_model", "1 for the version that this service promoted last", labels=("version",)
)
TRAINER_METRIC = _gauge(
    "trainer_validation",
    "what the last fit was worth on the later rows, by metric of the model card",
    labels=("metric",),
)
TRAINER = (
    *(TRAINER_STATE, TRAININGS, TRAINING_SECONDS, TRAINING_ENDED, TRAINER_MODEL),
    TRAINER_METRIC,
)
"""What `fraudstream trainer` serves."""

LEDGER_STATE = _state("ledger")
LEDGER_TRANSACTIONS = _gauge("ledger_transactions", "transactions read", "records")
LEDGER_SCORED = _gauge("ledger_scored", "scores of them", "records")
LEDGER_DEAD_LETTERS = _gauge("ledger_dead_letters", "dead letters of them", "records")
LEDGER_WAITING = _gauge(
    "ledger_waiting",
    "transactions without a result that no worker has committed, or that may still be read",
    "records",
)
LEDGER_UNKNOWN = _gauge(
    "ledger_unknown",
    "transactions that were committed without a result, whose score may have expired",
    "records",
)
LEDGER_LOST = _gauge("ledger_lost", "transactions that were committed without a result", "records")
LEDGER_DUPLICATES = _gauge(
    "ledger_duplicates", "results beyond the first of a transaction", "records"
)
LEDGER_UNFOUNDED = _gauge("ledger_unfounded", "results of no transaction", "records")
LEDGER_MISMATCHED = _gauge(
    "ledger_mismatched", "results of another transaction than the one at their place", "records"
)
LEDGER_EXPIRED = _gauge(
    "ledger_expired", "results of transactions that have expired, in no other number", "records"
)
LEDGER_DIFFERENCE = _gauge(
    "ledger_difference", "sum of lost, duplicates, unfounded, mismatched", "records"
)
LEDGER_AGE = _gauge(
    "ledger_age_seconds", "how long ago the newest complete judgement began", "seconds"
)
LEDGER_OLDEST = _gauge(
    "ledger_oldest_waiting_seconds",
    "age of the oldest transaction without a result, from its Kafka timestamp; 0 if none waits",
    "seconds",
)
LEDGER = (
    *(LEDGER_STATE, LEDGER_TRANSACTIONS, LEDGER_SCORED, LEDGER_DEAD_LETTERS, LEDGER_WAITING),
    *(LEDGER_UNKNOWN, LEDGER_LOST, LEDGER_DUPLICATES, LEDGER_UNFOUNDED, LEDGER_MISMATCHED),
    *(LEDGER_EXPIRED, LEDGER_DIFFERENCE, LEDGER_AGE, LEDGER_OLDEST),
)
"""What `fraudstream ledger --watch --metrics-port` serves."""

MONITOR_STATE = _state("monitor")
MONITOR_READ = _count(
    "monitor_read",
    "read and counted, by topic",
    labels=("topic",),
    begins_with=("scores", "alerts", "feedback", "dead-letters"),
)
MONITOR_NEWEST = _gauge(
    "monitor_event_time_ms", "the newest event time of a score", "milliseconds since 1970, UTC"
)
MONITOR_RECALL = _gauge(
    "monitor_recall", "share of the known frauds that were alerts, over the last 7 mature days"
)
MONITOR_PRECISION = _gauge(
    "monitor_precision", "share of the alerts that were frauds, over the last 7 mature days"
)
MONITOR_ALERT_RATE = _gauge(
    "monitor_alert_rate", "share of alerts, over the last 7 mature days of event time"
)
MONITOR_MATURE = _gauge(
    "monitor_mature", "decided transactions of the last 7 mature days", "records"
)
MONITOR_FRAUDS = _gauge("monitor_frauds", "known frauds of the last 7 mature days", "records")
MONITOR_DELAY = _histogram(
    "monitor_label_delay_days",
    "from a transaction to its first label, event time; labels given before it are left out",
    "days",
    edges=(0.25, 0.5, 1, 2, 3, 5, 7, 8, 10, 14, 21, 30, 60, 90),
)
MONITOR_PSI = _gauge(
    "monitor_psi",
    "population stability index of the last day over that had enough scores, beside the training",
    labels=("what",),
)
MONITOR_KS = _gauge("monitor_ks", "Kolmogorov-Smirnov distance, as `monitor_psi`", labels=("what",))
MONITOR_BINS = _gauge(
    "monitor_bin",
    "values of the last day over that had enough scores, by the bin of the training's histogram",
    "records",
    labels=("what", "bin"),
)
MONITOR_DRIFT = _gauge("monitor_drift", "1 while the score, or a feature, drifts", labels=("what",))
MONITOR_REFERENCE = _gauge(
    "monitor_reference",
    "1 for a version that scored on a day that is not over, and is compared with its training, "
    "0 if it says nothing of it",
    labels=("version",),
)
MONITOR_REPORTS = _count(
    "monitor_reports", "records written to `monitoring`, by kind", labels=("kind",)
)
MONITOR = (
    *(MONITOR_STATE, MONITOR_READ, MONITOR_NEWEST, MONITOR_RECALL, MONITOR_PRECISION),
    *(MONITOR_ALERT_RATE, MONITOR_MATURE, MONITOR_FRAUDS, MONITOR_DELAY, MONITOR_PSI, MONITOR_KS),
    *(MONITOR_DRIFT, MONITOR_BINS, MONITOR_REFERENCE, MONITOR_REPORTS),
)
"""What `fraudstream monitor` serves."""

SERVICES = {
    "scorer": SCORER,
    "replay": PRODUCER,
    "trainer": TRAINER,
    "monitor": MONITOR,
    "ledger": LEDGER,
}
"""All lists by service; docs/metrics.md has one table each."""


def table(metrics: Iterable[Metric]) -> str:
    """Return the metrics as a table for a page."""
    rows = ["| metric | kind | unit | says |", "|---|---|---|---|"]
    for each in metrics:
        labels = f"{{{', '.join(each.labels)}}}" if each.labels else ""
        rows.append(f"| `{each.name}{labels}` | {each.kind} | {each.unit} | {each.meaning} |")
    return "\n".join(rows)
