"""What alerts are worth as far as labels tell: recall and precision by day of event time.

A label counts when it has come. A fraud is known once its label says so; an alert is known to have been
right then too, and to have been wrong once its label says `genuine`, or the label delay is over without one.
"""

from collections import defaultdict

import msgspec

from fraudstream.core.evaluation import Share, share
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Feedback


class Day(msgspec.Struct):
    """Counts of one day of event time: decided transactions, alerts, known frauds, those alerted."""

    decided: int = 0
    alerts: int = 0
    frauds: int = 0
    found: int = 0
    cleared: int = 0
    """Alerts that a label calls genuine."""


class Decided(msgspec.Struct):
    """A transaction that a model has decided, and the label in force."""

    day: int
    alerted: bool


class Verdict(msgspec.Struct, frozen=True):
    """The latest label of a transaction and when it was given."""

    label: str
    labelled_at_ms: int


class LabelledQuality:
    """Decisions and labels in any order; answers for a window of days of event time.

    Keeps the last `keep_days` days of decisions; labels of older ones are left out.
    """

    def __init__(self, *, label_delay_ms: int, keep_days: int = 90) -> None:
        self._delay_ms = label_delay_ms
        self._keep_days = keep_days
        self._days: defaultdict[int, Day] = defaultdict(Day)
        self._decided: dict[str, Decided] = {}
        self._ids: defaultdict[int, list[str]] = defaultdict(list)
        self._verdicts: dict[str, Verdict] = {}
        self.now_ms = 0
        """The newest event time of a decision."""

    def decide(self, transaction_id: str, event_time_ms: int, *, alerted: bool) -> None:
        """Note what a model decided; a second decision on the same transaction counts nothing."""
        if transaction_id in self._decided:
            return
        day = event_time_ms // DAY_MS
        self._decided[transaction_id] = Decided(day, alerted)
        self._ids[day].append(transaction_id)
        counts = self._days[day]
        counts.decided += 1
        counts.alerts += alerted
        if (verdict := self._verdicts.get(transaction_id)) is not None:
            self._count(transaction_id, verdict.label, 1)
        if event_time_ms > self.now_ms:
            self._advance(event_time_ms)

    def label(self, feedback: Feedback) -> None:
        """Note a label; of several the one with the latest `labelled_at_ms` is in force."""
        known = self._verdicts.get(feedback.transaction_id)
        if known is not None and known.labelled_at_ms > feedback.labelled_at_ms:
            return
        if known is not None:
            self._count(feedback.transaction_id, known.label, -1)
        self._verdicts[feedback.transaction_id] = Verdict(feedback.label, feedback.labelled_at_ms)
        self._count(feedback.transaction_id, feedback.label, 1)

    def recall(self, days: int) -> Share:
        """Return the share of known frauds that were alerts, over the last `days` days."""
        chosen = self._window(self.now_ms // DAY_MS, days)
        return share(sum(day.found for day in chosen), sum(day.frauds for day in chosen))

    def precision(self, days: int) -> Share:
        """Return the share of alerts that were frauds, over the last `days` days that are mature."""
        chosen = self._window(self._newest_mature(), days)
        return share(sum(day.found for day in chosen), sum(day.alerts for day in chosen))

    def matured(self) -> int:
        """Return how many decided transactions have a label, or are older than the label delay."""
        border = self._newest_mature()
        return sum(
            counts.decided if day <= border else counts.frauds + counts.cleared
            for day, counts in self._days.items()
        )

    def by_day(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        """Return recall and precision of each day from the first decided to the newest, oldest first.

        None: no fraud of that day is known, no alert was given, or (precision) the day is not mature.
        """
        if not self._days:
            return (), ()
        border = self._newest_mature()
        span = range(min(self._days), max(self._days) + 1)
        counts = [self._days.get(day, Day()) for day in span]
        recall = tuple(c.found / c.frauds if c.frauds else None for c in counts)
        precision = tuple(
            c.found / c.alerts if c.alerts and day <= border else None
            for day, c in zip(span, counts, strict=True)
        )
        return recall, precision

    def _count(self, transaction_id: str, label: str, step: int) -> None:
        decided = self._decided.get(transaction_id)
        if decided is None:
            return
        counts = self._days[decided.day]
        if label == "fraud":
            counts.frauds += step
            counts.found += step * decided.alerted
        elif label == "genuine":
            counts.cleared += step * decided.alerted

    def _window(self, newest: int, days: int) -> list[Day]:
        return [counts for day, counts in self._days.items() if newest - days < day <= newest]

    def _newest_mature(self) -> int:
        """Return the newest day all of whose transactions are older than the label delay."""
        return (self.now_ms - self._delay_ms) // DAY_MS - 1

    def _advance(self, event_time_ms: int) -> None:
        before, self.now_ms = self.now_ms // DAY_MS, event_time_ms
        if event_time_ms // DAY_MS == before:
            return
        oldest = event_time_ms // DAY_MS - self._keep_days
        for day in [day for day in self._days if day < oldest]:
            for transaction_id in self._ids.pop(day, ()):
                del self._decided[transaction_id]
            del self._days[day]
        self._verdicts = {
            transaction_id: verdict
            for transaction_id, verdict in self._verdicts.items()
            if verdict.labelled_at_ms // DAY_MS >= oldest
        }
