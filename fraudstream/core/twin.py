"""The feature definitions once more, in plain Python: the oracle that the feature store is held against.

Nothing here is shared with the Lua library but the parameters. One `Twin` holds the state of a whole
stream in lists; fed in `apply_seq` order it gives the same float32 values, bit for bit.
"""

import math
import struct
from bisect import bisect_left, insort
from collections import defaultdict
from typing import NamedTuple

import msgspec

from fraudstream.core.feature_kinds import DISTINCT_MOST, Entity
from fraudstream.core.feature_set import DAY_MS, NINE, Feature, FeatureSet, id_digest
from fraudstream.core.transaction import Feedback, Label, Transaction

NEWEST_LOOKED_AT = 512
"""A duplicate is looked for among so many of the customer's newest, and at the same event time."""


class TwinReply(NamedTuple):
    """Nine float32-exact features; offset of the first of the same id, or -1; what retention cost."""

    features: tuple[float, ...]
    duplicate_of: int
    beyond_retention: bool
    truncated: bool


class Entry(NamedTuple):
    """One transaction of an entity, in order of (event time, digest).

    `ratio` and `unexplained` as the customer's profile had them when it was applied; `other`: digest of
    the name of the other entity.
    """

    t: int
    digest: bytes
    amount: int
    ratio: float
    unexplained: bool
    other: bytes
    offset: int


class Answer(NamedTuple):
    """One label: the later in the list has the later feedback offset."""

    labelled_at: int
    label: Label


class History(msgspec.Struct):
    """What is known of one entity: its retained transactions and the labels by (event time, digest).

    `n` and `total` (minor units) are the clean profile of a customer, `first` its first event time.
    """

    entries: list[Entry] = []
    labels: dict[tuple[int, bytes], list[Answer]] = {}
    n: int = 0
    total: int = 0
    first: int | None = None


def float32(x: float) -> float:
    """Return `x` rounded to the nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    return rounded


class Moment(NamedTuple):
    """One transaction at one entity, the entries before it, and the runs worked out so far by window."""

    history: History
    entry: Entry
    earlier: list[Entry]
    runs: dict[int, tuple[list[int], int | None]]


class Twin:
    """The state of a stream as plain lists, and the features of each transaction applied to it."""

    def __init__(self, feature_set: FeatureSet = NINE) -> None:
        self.parameters = feature_set
        self.customers: defaultdict[str, History] = defaultdict(History)
        self.terminals: defaultdict[str, History] = defaultdict(History)
        self._used: dict[Entity, bool] = {
            "customer": True,
            "terminal": bool(feature_set.of_entity("terminal")),
        }

    def apply(self, partition: int, offset: int, transaction: Transaction) -> TwinReply:
        """Apply one transaction, in offset order within its partition; return its features.

        `partition` says where the customer's transactions come from: all from the same.
        """
        del partition
        histories = self._histories(transaction)
        customer = histories["customer"]
        entry = self._entry(customer, offset, transaction)
        moments = {
            entity: Moment(
                history,
                _seen_from(entity, transaction, entry),
                _entries_before(history, entry),
                {},
            )
            for entity, history in histories.items()
        }
        rounded = tuple(
            float32(self._value(feature, moments)) for feature in self.parameters.definitions
        )
        lags = {
            entity: history.entries[-1].t - entry.t if history.entries else 0
            for entity, history in histories.items()
        }
        truncated = max(lags.values()) > self.parameters.lateness_ms
        first = _same_id(customer, entry)
        if first is not None:
            return TwinReply(rounded, first.offset, beyond_retention=False, truncated=truncated)
        self._count_clean(customer, entry)
        for entity, moment in moments.items():
            self._store(entity, moment)
        beyond = any(lag >= self.parameters.retention_ms(entity) for entity, lag in lags.items())
        return TwinReply(rounded, -1, beyond_retention=beyond, truncated=truncated)

    def label(self, feedback: Feedback) -> None:
        """Apply one label, in feedback-offset order."""
        key = (feedback.event_time_ms, id_digest(feedback.transaction_id))
        for entity, history in self._histories(feedback).items():
            answers = history.labels.setdefault(key, [])
            answers.append(Answer(feedback.labelled_at_ms, feedback.label))
            self._expire(entity, history)

    def _histories(self, record: Transaction | Feedback) -> dict[Entity, History]:
        """Return the histories that the set reads, of the entities of a record."""
        found: dict[Entity, History] = {"customer": self.customers[record.entities.customer]}
        if self._used["terminal"]:
            found["terminal"] = self.terminals[record.entities.terminal]
        return found

    def _entry(self, customer: History, offset: int, transaction: Transaction) -> Entry:
        """Return the transaction as an entry, with what the customer's profile makes of it."""
        p = self.parameters
        amount = transaction.amount_minor
        ratio = float32(float(amount * (customer.n + 1)) / (customer.total + p.prior_sum_minor))
        explained = amount > p.clean_max_minor or ratio > p.clean_max_ratio
        t, digest = transaction.event_time_ms, id_digest(transaction.transaction_id)
        return Entry(t, digest, amount, ratio, not explained, b"", offset)

    def _value(self, feature: Feature, moments: dict[Entity, Moment]) -> float:
        """Return the value of one feature, not yet rounded."""
        p = self.parameters
        if not feature.entity:
            return moments["customer"].entry.amount / p.minor_per_major
        moment = moments[feature.entity]
        entry, kind = moment.entry, feature.kind
        if kind == "ratio":
            return entry.ratio
        if kind == "age":
            first = moment.history.first
            return 0.0 if first is None else max(0, entry.t - first) / DAY_MS
        if kind in _LABELLED:
            return self._labelled(feature, moment)
        begin = bisect_left(moment.earlier, (entry.t - feature.window_ms + 1,))
        window = moment.earlier[begin:]
        return (
            self._before(kind, window, entry.t)
            if kind in _BEFORE
            else self._aggregate(kind, [*window, entry])
        )

    def _labelled(self, feature: Feature, moment: Moment) -> float:
        if feature.kind == "fraud_share":
            return self._fraud_share(moment, feature.window_ms)
        return self._run(moment, feature)

    def _aggregate(self, kind: str, window: list[Entry]) -> float:
        """Return an aggregate over a window whose last entry is the current transaction."""
        amounts = [entry.amount for entry in window]
        n, total, unit = len(amounts), sum(amounts), self.parameters.minor_per_major
        if kind == "count":
            return n
        if kind == "distinct":
            return len({entry.other for entry in window[-DISTINCT_MOST:]})
        if kind == "std":
            spread = n * sum(amount * amount for amount in amounts) - total * total
            return math.sqrt(float(spread) / (n * n)) / unit
        values = {"sum": total, "max": max(amounts), "min": min(amounts)}
        return total / (n * unit) if kind == "mean" else values[kind] / unit

    def _before(self, kind: str, window: list[Entry], t: int) -> float:
        """Return a value of the entries in the window before a transaction at t."""
        p = self.parameters
        if kind == "largest_ratio":
            return max((entry.ratio for entry in window), default=0.0)
        if kind != "since_last":
            window = [entry for entry in window if entry.ratio > p.hot_ratio]
        if not window:
            return p.none_days
        return (t - window[0 if kind == "since_first_hot" else -1].t) / DAY_MS

    def _run(self, moment: Moment, feature: Feature) -> float:
        """Return a value of the terminal's run."""
        p, t, window_ms = self.parameters, moment.entry.t, feature.window_ms
        if window_ms not in moment.runs:
            moment.runs[window_ms] = self._walk_back(moment, window_ms)
        run, genuine = moment.runs[window_ms]
        if feature.kind == "confirmed_run":
            return len(run)
        if feature.kind == "since_genuine":
            return p.none_days if genuine is None else (t - genuine) / DAY_MS
        if not run:
            return p.no_run_days
        if feature.kind == "run_age":
            return t // DAY_MS - run[-1] // DAY_MS
        return p.unknown_days if genuine is None else t // DAY_MS - genuine // DAY_MS

    def _walk_back(self, moment: Moment, window_ms: int) -> tuple[list[int], int | None]:
        """Return the times of the run's frauds, newest first, and of the genuine one before them."""
        t = moment.entry.t
        run: list[int] = []
        for entry in reversed(moment.earlier):
            if entry.t <= t - window_ms:
                break
            verdict = self._verdict(moment.history, entry, t)
            if verdict == "genuine":
                return run, entry.t
            if verdict == "fraud" and entry.unexplained:
                run.append(entry.t)
        return run, None

    def _fraud_share(self, moment: Moment, window_ms: int) -> float:
        """Return the share of frauds in (t - delay - window, t - delay], by labels known at t."""
        t, last = moment.entry.t, moment.entry.t - self.parameters.label_delay_ms
        ripe = [entry for entry in moment.earlier if last - window_ms < entry.t <= last]
        frauds = [e for e in ripe if self._verdict(moment.history, e, t) == "fraud"]
        return len(frauds) / len(ripe) if ripe else 0.0

    def _verdict(self, history: History, entry: Entry, t: int) -> Label | None:
        """Return what is confirmed about `entry` at time t: fraud, genuine or nothing."""
        known = [
            answer
            for answer in history.labels.get((entry.t, entry.digest), ())
            if answer.labelled_at <= t
        ]
        if known:
            latest = max(answer.labelled_at for answer in known)
            in_force = [answer.label for answer in known if answer.labelled_at == latest][-1]
            if in_force != "unsure":
                return in_force
        return "genuine" if entry.t + self.parameters.label_delay_ms <= t else None

    def _count_clean(self, customer: History, entry: Entry) -> None:
        """Count a transaction in the clean profile if it is clean."""
        p = self.parameters
        usual = customer.n < p.clean_warm_up or entry.ratio <= p.clean_max_ratio
        if entry.amount <= p.clean_max_minor and usual:
            customer.n += 1
            customer.total += entry.amount

    def _store(self, entity: Entity, moment: Moment) -> None:
        history, entry = moment.history, moment.entry
        history.first = entry.t if history.first is None else min(history.first, entry.t)
        insort(history.entries, entry)
        self._expire(entity, history)

    def _expire(self, entity: Entity, history: History) -> None:
        """Drop entries and labels a window and the lateness behind the entity's newest."""
        if not history.entries:
            return
        oldest = history.entries[-1].t - self.parameters.retention_ms(entity)
        del history.entries[: bisect_left(history.entries, (oldest + 1,))]
        for key in [key for key in history.labels if key[0] <= oldest]:
            del history.labels[key]


_LABELLED = frozenset(
    {"confirmed_run", "run_age", "genuine_before_run", "since_genuine", "fraud_share"}
)
_BEFORE = frozenset({"largest_ratio", "since_last_hot", "since_first_hot", "since_last"})


def _seen_from(entity: Entity, transaction: Transaction, entry: Entry) -> Entry:
    """Return the entry with the digest of the name of the other entity."""
    names = transaction.entities
    other = names.terminal if entity == "customer" else names.customer
    return entry._replace(other=id_digest(other))


def _entries_before(history: History, entry: Entry) -> list[Entry]:
    return history.entries[: bisect_left(history.entries, (entry.t, entry.digest))]


def _same_id(customer: History, entry: Entry) -> Entry | None:
    """Return the customer's retained transaction of the same id, if it is among those looked at."""
    newest = customer.entries[-NEWEST_LOOKED_AT:]
    same_time = [e for e in customer.entries if e.t == entry.t]
    found = [each for each in (*newest, *same_time) if each.digest == entry.digest]
    return found[0] if found else None
