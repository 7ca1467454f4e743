"""What the monitoring service knows: days of event time, alerts, labels. Pure: records in, reports out.

Kept for each transaction are only those that alerted or have a label; of the others each day has counts.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.reference import Reference, counted, ks, psi
from fraudstream.core.transaction import Feedback
from monitoring.drift import Alarm, Levels
from monitoring.reports import DayReport, Distance, DriftReport, QualityReport, Report, name_of

SCORE = "score"
LATE_MS = 3_600_000
"""A day is over when the stream is an hour beyond it."""
KEEP_DAYS = 14
"""For how long after its label delay alerts and labels of a day are kept; later labels change nothing."""
BEGUN = 20
BEGUN_SHARE = 0.1
"""So many scores, and such a share of a full day's, make a day begin: wrong clocks end no day before it."""


class Scored(msgspec.Struct, gc=False):
    """The part of a score that is looked at."""

    transaction_id: str
    event_time_ms: int
    features: list[float]
    score: float | None = None
    decision: str = "none"
    model_version: str | None = None
    duplicate_of: int | None = None


class Compared(msgspec.Struct):
    """What one version scored on a day: how many, the newest event time, and their histograms by name."""

    scores: int = 0
    newest_ms: int = 0
    counts: dict[str, list[int]] = {}


class Day(msgspec.Struct):
    """Counts of a day; partitions may be at different places, so versions are counted apart."""

    decided: int = 0
    alerts: int = 0
    alert_records: int = 0
    dead_letters: int = 0
    labels: int = 0
    labels_after_ms: int = 0
    """From each transaction to its first label, all together."""
    frauds: int = 0
    found: int = 0
    versions: dict[str, Compared] = {}

    def version(self, least: int) -> str | None:
        """Return the version of the newest transaction, that of most if only that has `least` compared.

        None without one.
        """
        versions = self.versions
        newest = max(versions, key=lambda each: versions[each].newest_ms, default=None)
        most = max(versions, key=lambda each: versions[each].scores, default=None)
        if newest is None or most is None or versions[newest].scores >= least:
            return newest
        return most if versions[most].scores >= least else newest


class Verdict(msgspec.Struct, array_like=True):
    """The label in force of a transaction, when it was given, and the day that it counts on.

    That is the day of the alert; without one what the label says of the transaction.
    """

    label: str
    labelled_at_ms: int
    day: int


class State(msgspec.Struct):
    """All that is known; written to a file as it stands, beside the offsets up to which it was read."""

    topic_ids: dict[str, str] = {}
    offsets: dict[str, dict[int, int]] = {}
    newest: dict[int, int] = {}
    """Event time of the last score of each partition."""
    days: dict[int, Day] = {}
    alerted: dict[str, int] = {}
    verdicts: dict[str, Verdict] = {}
    alarms: dict[str, Alarm] = {}
    begun: dict[int, int] = {}
    """How many scores came of a day, its first hour left out, by day; since the last one was over."""
    distances: dict[str, Distance] = {}
    """Those of the last day that was over."""
    over: int = -1
    """The last day that was reported to be over."""
    mature: int = -1
    """The last day whose quality was reported."""
    newest_ms: int = 0


class Watching:
    """Takes records in any order of topics; gives reports when days are over and mature."""

    def __init__(self, state: State, *, label_delay_ms: int, levels: Levels) -> None:
        self.state = state
        self._delay_ms = label_delay_ms
        self._levels = levels
        self._references: dict[str, Reference | None] = {}
        self.delays_days: list[float] = []
        """How long first labels took that came since somebody last looked; not those before their time."""

    def follow(self, version: str, reference: Reference | None) -> None:
        """Compare what this version scores with what was at its training, None for nothing."""
        self._references[version] = reference

    def unknown(self) -> set[str]:
        """Return the versions of days that are not over which `follow` has not told of."""
        return self.open_versions() - self._references.keys()

    def open_versions(self) -> set[str]:
        """Return the versions that scored on days that are not over."""
        open_days = [day for number, day in self.state.days.items() if number > self.state.over]
        return {version for day in open_days for version in day.versions}

    def begun_ms(self) -> int:
        """Return the latest time that it can be, as far as days have begun."""
        day = self._begun_day()
        return 0 if day is None else (day + 1) * DAY_MS + LATE_MS - 1

    def _begun_day(self) -> int | None:
        begun = self.state.begun
        enough = max(BEGUN, BEGUN_SHARE * max(begun.values(), default=0))
        count = 0
        for number in sorted(begun, reverse=True):
            count += begun[number]
            if count >= enough:
                return number
        return None

    def scores(self, scored: Sequence[Scored]) -> None:
        """Take scores; those without a model, and repeated ones, only move the time."""
        if not scored:
            return
        state = self.state
        times_ms = np.array([each.event_time_ms for each in scored])
        state.newest_ms = max(state.newest_ms, int(times_ms.max()))
        numbers, counts = np.unique((times_ms - LATE_MS) // DAY_MS, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            state.begun[number] = state.begun.get(number, 0) + count
        new = [
            each for each in scored if each.model_version is not None and each.duplicate_of is None
        ]
        if not new:
            return
        days = np.array([each.event_time_ms for each in new]) // DAY_MS
        for number in np.unique(days).tolist():
            self._day_of_scores(number, [new[i] for i in np.flatnonzero(days == number)])

    def _day_of_scores(self, number: int, scored: list[Scored]) -> None:
        day = self._day(number)
        day.decided += len(scored)
        for each in scored:
            if each.decision == "alert" and each.transaction_id not in self.state.alerted:
                day.alerts += 1
                self._alert(each.transaction_id, number)
        for version in sorted({each.model_version or "" for each in scored}):
            ours = [each for each in scored if each.model_version == version]
            compared = day.versions.setdefault(version, Compared())
            compared.newest_ms = max(compared.newest_ms, *(each.event_time_ms for each in ours))
            reference = self._references.get(version)
            if reference is not None:
                self._compare(compared, ours, reference)

    def _alert(self, transaction_id: str, number: int) -> None:
        """Take note of an alert; a label that came before it counts on its day from now on."""
        verdict = self.state.verdicts.get(transaction_id)
        if verdict is not None:
            self._judge(transaction_id, verdict, -1)
            verdict.day = number
        self.state.alerted[transaction_id] = number
        if verdict is not None:
            self._judge(transaction_id, verdict, 1)

    def _compare(self, compared: Compared, scored: list[Scored], reference: Reference) -> None:
        """Count into the bins of the reference."""
        features = np.array([each.features for each in scored])
        columns = dict(zip(reference.features, features.T, strict=True))
        columns[SCORE] = np.array([each.score for each in scored])
        for name, values in columns.items():
            bins = reference.scores if name == SCORE else reference.features[name]
            found = counted(bins.edges, values)
            before = compared.counts.get(name)
            compared.counts[name] = (found if before is None else found + before).tolist()
        compared.scores += len(scored)

    def labels(self, answers: Sequence[Feedback]) -> None:
        """Take labels; of several of a transaction the one that was given last is in force."""
        verdicts = self.state.verdicts
        for each in answers:
            known = verdicts.get(each.transaction_id)
            if known is not None and known.labelled_at_ms > each.labelled_at_ms:
                continue
            number = each.event_time_ms // DAY_MS
            if known is None:
                self._first_label(self._day(number), each.labelled_at_ms - each.event_time_ms)
            else:
                self._judge(each.transaction_id, known, -1)
            counts_on = self.state.alerted.get(each.transaction_id, number)
            verdict = Verdict(each.label, each.labelled_at_ms, counts_on)
            verdicts[each.transaction_id] = verdict
            self._judge(each.transaction_id, verdict, 1)

    def _first_label(self, day: Day, after_ms: int) -> None:
        day.labels += 1
        day.labels_after_ms += after_ms
        if after_ms >= 0:  # a histogram's sum must not fall
            self.delays_days.append(after_ms / DAY_MS)

    def _judge(self, transaction_id: str, verdict: Verdict, step: int) -> None:
        if verdict.label == "fraud":
            day = self._day(verdict.day)
            day.frauds += step
            day.found += step * (transaction_id in self.state.alerted)

    def alert_records(self, event_times_ms: Sequence[int]) -> None:
        """Take records of the topic alerts, by the event times of their transactions."""
        for each in event_times_ms:
            self._day(each // DAY_MS).alert_records += 1

    def dead_letters(self, event_times_ms: Sequence[int]) -> None:
        """Take dead letters by the time at which they were written."""
        for each in event_times_ms:
            self._day(each // DAY_MS).dead_letters += 1

    def due(self, until_ms: int) -> list[Report]:
        """Return the reports of days that are over or mature now that all up to `until_ms` has come.

        Days on which nothing was decided have none.
        """
        state = self.state
        if not any(day.decided for day in state.days.values()):
            return []
        reports: list[Report] = []
        over = (until_ms - LATE_MS) // DAY_MS - 1
        for number in self._decided(state.over, over):
            reports += self._over(number)
        mature = (until_ms - LATE_MS - self._delay_ms) // DAY_MS - 1
        reports += [self._quality(number) for number in self._decided(state.mature, mature)]
        state.mature = max(state.mature, mature)
        if over > state.over:
            state.over = over
            last = max(over, self._begun_day() or 0) + 1  # what is further ahead is counted anew
            state.begun = {n: count for n, count in state.begun.items() if over <= n <= last}
            self._forget(over - self._delay_ms // DAY_MS - KEEP_DAYS)
        return reports

    def _decided(self, after: int, last: int) -> list[int]:
        """Return the days behind `after`, up to `last`, on which something was decided."""
        days = self.state.days.items()
        return sorted(number for number, day in days if after < number <= last and day.decided)

    def quality(self, days: int = 7) -> tuple[Day, int]:
        """Return the counts of the last `days` mature days together, and how many transactions that are."""
        last = self.state.mature
        found = [
            self.state.days[n] for n in range(last - days + 1, last + 1) if n in self.state.days
        ]
        together = Day(
            decided=sum(day.decided for day in found),
            alerts=sum(day.alerts for day in found),
            frauds=sum(day.frauds for day in found),
            found=sum(day.found for day in found),
        )
        return together, together.decided

    def _over(self, number: int) -> list[Report]:
        day = self._day(number)
        version = day.version(self._levels.min_scores)
        last, found = self.state.distances, self._distances(day, version)
        if found:
            self.state.distances = found
        report = DayReport(
            day=name_of(number),
            decided=day.decided,
            alerts=day.alerts,
            alert_records=day.alert_records,
            dead_letters=day.dead_letters,
            model_version=version,
            compared=day.versions[version or ""].scores if found else 0,
            score=found.get(SCORE),
            features={name: each for name, each in found.items() if name != SCORE},
        )
        says_nothing = (version, None) in self._references.items()
        changes = self._changes(report, found, last | found) if found or says_nothing else []
        return [report, *changes]

    def _changes(
        self, report: DayReport, found: dict[str, Distance], known: dict[str, Distance]
    ) -> list[DriftReport]:
        """Return what began or ended to drift, by the day's version, whichever the day before had.

        What that version does not have drifts no more, nor does anything if it says nothing of its training;
        `known` has the distances of the last day that had it.
        """
        before = self.state.alarms
        alarms = self.state.alarms = {name: before.get(name, Alarm()) for name in found}
        changed = {n: a.drifts for n, a in alarms.items() if a.look(found[n].psi, self._levels)}
        changed |= {n: False for n, alarm in before.items() if n not in found and alarm.drifts}
        return [
            DriftReport(
                day=report.day,
                what=name,
                drifts=drifts,
                psi=known[name].psi,
                model_version=report.model_version or "",
            )
            for name, drifts in changed.items()
            if name in known
        ]

    def _distances(self, day: Day, version: str | None) -> dict[str, Distance]:
        """Return how far the scores of the day's version are from its training; empty without enough."""
        reference = self._references.get(version or "")
        if reference is None or day.versions[version or ""].scores < self._levels.min_scores:
            return {}
        bins = reference.features | {SCORE: reference.scores}
        return {
            name: Distance(
                round(psi(bins[name].counts, counts), 6),
                round(ks(bins[name].counts, counts), 6),
                counts,
            )
            for name, counts in day.versions[version or ""].counts.items()
        }

    def _quality(self, number: int) -> QualityReport:
        day = self._day(number)
        return QualityReport(
            day=name_of(number),
            decided=day.decided,
            alerts=day.alerts,
            frauds=day.frauds,
            found=day.found,
            recall=day.found / day.frauds if day.frauds else None,
            precision=day.found / day.alerts if day.alerts else None,
            alert_rate=day.alerts / day.decided if day.decided else None,
            labels=day.labels,
            label_delay_days=day.labels_after_ms / day.labels / DAY_MS if day.labels else None,
        )

    def _day(self, number: int) -> Day:
        day = self.state.days.get(number)
        if day is None:
            day = self.state.days[number] = Day()
        return day

    def _forget(self, before: int) -> None:
        """Drop what is of days before this one."""
        state = self.state
        if not any(number < before for number in state.days):
            return
        state.days = {n: day for n, day in state.days.items() if n >= before}
        state.alerted = {name: n for name, n in state.alerted.items() if n >= before}
        state.verdicts = {name: v for name, v in state.verdicts.items() if v.day >= before}
