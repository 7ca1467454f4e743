"""The feature definitions once more, in plain Python: the oracle that the feature store is held against.

Nothing here is shared with the Lua library but the parameters. One `Twin` holds the state of a whole
stream in lists; fed in `apply_seq` order it gives the same nine float32 values, bit for bit.
"""

import struct
from bisect import bisect_left, insort
from collections import defaultdict
from typing import NamedTuple

import msgspec

from fraudstream.core.feature_set import DAY_MS, NINE, FeatureSet, id_digest
from fraudstream.core.transaction import Feedback, Label, Transaction


class TwinReply(NamedTuple):
    """Nine float32-exact features; offset of the first of the same id, or -1; what retention cost."""

    features: tuple[float, ...]
    duplicate_of: int
    beyond_retention: bool
    truncated: bool


class Purchase(NamedTuple):
    """One entry of a customer, in order of (event time, digest)."""

    t: int
    digest: bytes
    ratio: float
    offset: int


class Visit(NamedTuple):
    """One entry of a terminal, in order of (event time, digest, unexplained)."""

    t: int
    digest: bytes
    unexplained: bool


class Answer(NamedTuple):
    """One label: the later in the list has the later feedback offset."""

    labelled_at: int
    label: Label


class Customer(msgspec.Struct):
    """The clean profile (count, sum in minor units) and the retained transactions of a customer."""

    n: int = 0
    total: int = 0
    entries: list[Purchase] = []


class Terminal(msgspec.Struct):
    """The retained transactions of a terminal and the labels by (event time, digest)."""

    entries: list[Visit] = []
    labels: dict[tuple[int, bytes], list[Answer]] = {}


def float32(x: float) -> float:
    """Return `x` rounded to the nearest float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    return rounded


class Twin:
    """The state of a stream as plain lists, and the nine features of each transaction applied to it."""

    def __init__(self, feature_set: FeatureSet = NINE) -> None:
        self.parameters = feature_set
        self.customers: defaultdict[str, Customer] = defaultdict(Customer)
        self.terminals: defaultdict[str, Terminal] = defaultdict(Terminal)

    def apply(self, partition: int, offset: int, transaction: Transaction) -> TwinReply:
        """Apply one transaction, in offset order within its partition; return its features.

        `partition` says where the customer's transactions come from: all from the same.
        """
        del partition
        p = self.parameters
        customer = self.customers[transaction.entities.customer]
        terminal = self.terminals[transaction.entities.terminal]
        t, digest = transaction.event_time_ms, id_digest(transaction.transaction_id)
        amount = transaction.amount_minor
        ratio = float32(float(amount * (customer.n + 1)) / (customer.total + p.prior_sum_minor))
        features = (
            amount / p.minor_per_major,
            ratio,
            *self._ratio_features(customer, t, digest),
            *self._run_features(terminal, t, digest),
        )
        rounded = tuple(float32(feature) for feature in features)
        customer_lag = customer.entries[-1].t - t if customer.entries else 0
        terminal_lag = terminal.entries[-1].t - t if terminal.entries else 0
        truncated = max(customer_lag, terminal_lag) > p.lateness_ms
        for first in customer.entries:
            if first.digest == digest:
                return TwinReply(rounded, first.offset, beyond_retention=False, truncated=truncated)
        self._store(customer, amount, Purchase(t, digest, ratio, offset))
        explained = amount > p.clean_max_minor or ratio > p.clean_max_ratio
        insort(terminal.entries, Visit(t, digest, not explained))
        self._expire(terminal)
        beyond = customer_lag >= p.customer_retention_ms or terminal_lag >= p.terminal_retention_ms
        return TwinReply(rounded, -1, beyond_retention=beyond, truncated=truncated)

    def label(self, feedback: Feedback) -> None:
        """Apply one label, in feedback-offset order."""
        terminal = self.terminals[feedback.entities.terminal]
        key = (feedback.event_time_ms, id_digest(feedback.transaction_id))
        terminal.labels.setdefault(key, []).append(Answer(feedback.labelled_at_ms, feedback.label))
        self._expire(terminal)

    def _ratio_features(self, customer: Customer, t: int, digest: bytes) -> tuple[float, ...]:
        """Return features 3 to 5: largest ratio, days since the last and the first hot one."""
        p = self.parameters
        earlier = customer.entries[: bisect_left(customer.entries, (t, digest))]
        window = [entry for entry in earlier if entry.t > t - p.customer_window_ms]
        hot = [entry.t for entry in window if entry.ratio > p.hot_ratio]
        largest = max((entry.ratio for entry in window), default=0.0)
        if not hot:
            return largest, p.none_days, p.none_days
        return largest, (t - hot[-1]) / DAY_MS, (t - hot[0]) / DAY_MS

    def _run_features(self, terminal: Terminal, t: int, digest: bytes) -> tuple[float, ...]:
        """Return features 6 to 9: walk back over what is confirmed at t, to the first genuine."""
        p = self.parameters
        run: list[int] = []
        genuine: int | None = None
        position = bisect_left(terminal.entries, (t, digest))
        for entry in reversed(terminal.entries[:position]):
            if entry.t <= t - p.terminal_window_ms:
                break
            verdict = self._verdict(terminal, entry, t)
            if verdict == "genuine":
                genuine = entry.t
                break
            if verdict == "fraud" and entry.unexplained:
                run.append(entry.t)
        since_genuine = p.none_days if genuine is None else (t - genuine) / DAY_MS
        if not run:
            return 0.0, p.no_run_days, p.no_run_days, since_genuine
        age = t // DAY_MS - run[-1] // DAY_MS
        before = p.unknown_days if genuine is None else t // DAY_MS - genuine // DAY_MS
        return len(run), age, before, since_genuine

    def _verdict(self, terminal: Terminal, entry: Visit, t: int) -> Label | None:
        """Return what is confirmed about `entry` at time t: fraud, genuine or nothing."""
        known = [
            answer
            for answer in terminal.labels.get((entry.t, entry.digest), ())
            if answer.labelled_at <= t
        ]
        if known:
            latest = max(answer.labelled_at for answer in known)
            in_force = [answer.label for answer in known if answer.labelled_at == latest][-1]
            if in_force != "unsure":
                return in_force
        return "genuine" if entry.t + self.parameters.label_delay_ms <= t else None

    def _store(self, customer: Customer, amount: int, entry: Purchase) -> None:
        """Count `entry` in the clean profile if it is clean, and in the retained transactions."""
        p = self.parameters
        usual = customer.n < p.clean_warm_up or entry.ratio <= p.clean_max_ratio
        if amount <= p.clean_max_minor and usual:
            customer.n += 1
            customer.total += amount
        insort(customer.entries, entry)
        oldest = customer.entries[-1].t - p.customer_retention_ms
        while customer.entries[0].t <= oldest:
            customer.entries.pop(0)

    def _expire(self, terminal: Terminal) -> None:
        """Drop entries and labels a window and the lateness behind the terminal's newest."""
        if not terminal.entries:
            return
        oldest = terminal.entries[-1].t - self.parameters.terminal_retention_ms
        while terminal.entries[0].t <= oldest:
            terminal.entries.pop(0)
        for key in [key for key in terminal.labels if key[0] <= oldest]:
            del terminal.labels[key]
