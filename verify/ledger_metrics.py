"""The balance as gauges for Prometheus, while `fraudstream ledger --watch` runs."""

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.metrics import ServiceMetrics
from fraudstream.core import metrics as m
from fraudstream.core.health import Health, hanging
from verify.ledger import Ledger
from verify.watch import Watch

GAUGES = {
    m.LEDGER_TRANSACTIONS: "transactions",
    m.LEDGER_SCORED: "scored",
    m.LEDGER_DEAD_LETTERS: "dead_letters",
    m.LEDGER_WAITING: "waiting",
    m.LEDGER_UNKNOWN: "unknown",
    m.LEDGER_LOST: "lost",
    m.LEDGER_DUPLICATES: "duplicates",
    m.LEDGER_UNFOUNDED: "unfounded",
    m.LEDGER_MISMATCHED: "mismatched",
    m.LEDGER_EXPIRED: "expired",
}
"""Each the field of that name of `Ledger`."""
DIFFERENCE = ("lost", "duplicates", "unfounded", "mismatched")
STALE_S = 30.0
"""A judgement that is older says nothing of now: a transaction is open, say, and hides what is behind it."""
HANGS_S = 120.0
"""A step takes a tenth of a second; with a broker that hangs, what it asks has limits below this."""


class LedgerMetrics:
    """The gauges of one watch."""

    def __init__(self, watch: Watch) -> None:
        self._metrics = ServiceMetrics(m.LEDGER)
        self._watch = watch
        self._oldest_ms: int | None = None
        self.registry = self._metrics.registry
        self._metrics.gauge(m.LEDGER_AGE).set_function(self._age_s)
        self._metrics.gauge(m.LEDGER_OLDEST).set_function(self._oldest_s)
        self._metrics.state(m.LEDGER_STATE, lambda: self.health().state)

    def show(self, ledger: Ledger) -> None:
        """Set every gauge to the balance as of now."""
        self._oldest_ms = self._watch.books.oldest_ms()
        for metric, field in GAUGES.items():
            self._metrics.gauge(metric).set(getattr(ledger, field))
        difference = sum(getattr(ledger, name) for name in DIFFERENCE)
        self._metrics.gauge(m.LEDGER_DIFFERENCE).set(difference)

    def health(self) -> Health:
        """Return `ready` while judgements are fresh; the gauge of the state says the same."""
        if (still_s := monotonic_s() - self._watch.stepped_s) > HANGS_S:
            return hanging(still_s)
        if not self._watch.has_judged:
            return Health("starting")
        if away := self._watch.away:
            return Health("waiting", away)
        if self._age_s() > STALE_S:
            return Health("waiting", f"the newest judgement is {self._age_s():.0f} s old")
        return Health("ready")

    def _age_s(self) -> float:
        return monotonic_s() - self._watch.judged_s

    def _oldest_s(self) -> float:
        if not self._watch.has_judged:
            return float("nan")  # what is half read looks as if it waited
        return 0.0 if self._oldest_ms is None else max(now_ms() - self._oldest_ms, 0) / 1000
