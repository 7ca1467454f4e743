"""What the live view shows: one frozen picture of the running system, taken a few times a second."""

import msgspec

from fraudstream.core.evaluation import Share, share

__all__ = ["AlertLine", "Latency", "Picture", "Series", "Share", "VersionChange"]


class VersionChange(msgspec.Struct, frozen=True):
    """A model version that began to serve: at second `at_s` of the demo, at `event_time_ms` of the stream."""

    version: str
    at_s: float
    event_time_ms: int


class AlertLine(msgspec.Struct, frozen=True):
    """One alert: amount in minor units, score 0 to 1; `unusual`: features furthest from the usual."""

    event_time_ms: int
    amount_minor: int
    currency: str
    customer: str
    terminal: str
    score: float
    alert_id: str
    unusual: tuple[str, ...] = msgspec.field(name="reasons")


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the scores' own ledger, over the newest of them.

    Quantiles of the time from sending to produce, and medians of its four stages.
    """

    p50: float
    p99: float
    waiting: float
    features: float
    model: float
    until_produce: float


class Series(msgspec.Struct, frozen=True):
    """Histories for charts, oldest first; a None is a point without data.

    By second: transactions scored, alerts a minute, p99 latency in ms. By day of event time: recall and
    precision over what is known of that day by now.
    """

    rate_per_s: tuple[float, ...] = ()
    alerts_per_min: tuple[float, ...] = ()
    p99_ms: tuple[float | None, ...] = ()
    recall: tuple[float | None, ...] = ()
    precision: tuple[float | None, ...] = ()


NOTHING = share(0, 0)


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the view needs at one moment.

    Its defaults are what is known before anything runs. Counts are records since the environment's
    beginning. `waiting` (lag): not committed yet. `difference`: committed transactions without a result plus
    results beyond the first, over `checked` positions; None before the first check. Recall and precision
    cover transactions of the last days whose label is known; `matured` counts all that have one.
    `promised_recall` is what the serving version reached on its validation rows.
    """

    scenario: str
    step: str
    elapsed_s: float
    event_time_ms: int | None = None
    transactions: int = 0
    scored: int = 0
    dead_letters: int = 0
    waiting: int = 0
    difference: int | None = None
    checked: int = 0
    rate_per_s: float = 0.0
    alerts: int = 0
    alerts_per_min: float = 0.0
    latency: Latency | None = None
    versions: tuple[VersionChange, ...] = ()
    recall: Share = NOTHING
    precision: Share = NOTHING
    matured: int = 0
    promised_recall: float | None = None
    series: Series = Series()
    last_alerts: tuple[AlertLine, ...] = ()
    story: tuple[str, ...] = ()
    """The newest lines of the story, oldest first."""
