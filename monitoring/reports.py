"""What the monitoring service writes to the topic `monitoring`; the key of a record names it once for all."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from fraudstream.core.feature_set import DAY_MS


class Distance(msgspec.Struct, frozen=True):
    """How far scores or a feature of a day are from what they were at training.

    `counts`: how many fell into each bin of the training's histogram, which stands in the version's contract.
    """

    psi: float
    ks: float
    counts: list[int] = []


class DayReport(msgspec.Struct, frozen=True, kw_only=True, tag="day", tag_field="kind"):
    """A day of event time, once it is over; `compared` transactions were scored by `model_version`.

    `alert_records`: those in the topic alerts, repeated transactions included.
    """

    v: Literal[1] = 1
    day: str
    decided: int
    alerts: int
    alert_records: int
    dead_letters: int
    model_version: str | None
    compared: int
    score: Distance | None
    features: dict[str, Distance]


class QualityReport(msgspec.Struct, frozen=True, kw_only=True, tag="quality", tag_field="kind"):
    """What the alerts of a day were worth, once its label delay is over: `found` of the known `frauds`.

    `label_delay_days`: mean time from a transaction to its first label, event time; None without labels.
    """

    v: Literal[1] = 1
    day: str
    decided: int
    alerts: int
    frauds: int
    found: int
    recall: float | None
    precision: float | None
    alert_rate: float | None = None
    labels: int
    label_delay_days: float | None


class DriftReport(msgspec.Struct, frozen=True, kw_only=True, tag="drift", tag_field="kind"):
    """Drift of the score, or of a feature, has begun or ended with a day."""

    v: Literal[1] = 1
    day: str
    what: str
    drifts: bool
    psi: float
    model_version: str


Report = DayReport | QualityReport | DriftReport


def key_of(report: Report) -> str:
    """Return the key: one record of it is enough."""
    what = f"/{report.what}" if isinstance(report, DriftReport) else ""
    return f"{report.day}/{report.__struct_config__.tag}{what}"


def name_of(day: int) -> str:
    """Return a day of event time, counted from 1970, as a date in UTC."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")
