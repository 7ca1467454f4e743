"""The load of the feature benchmark: transactions in event-time order, each label at its time."""

from collections.abc import Sequence

import numpy as np

from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Feedback, Label, Transaction

PARTITIONS = 8
START_MS = 1_000_000_000_000
"""Long ago: at 25,000 a second a minute of the clock is two months and more of event time."""
LABELLED, FRAUD = 0.02, 0.6
LABEL_AFTER_MS = 7 * DAY_MS


class Load:
    """A stream over `customers` and `terminals` (names are their numbers), `per_day` transactions a day."""

    def __init__(self, customers: int, terminals: int, per_day: float, seed: int = 7) -> None:
        self.random = np.random.default_rng(seed)
        self.customers, self.terminals, self.per_day = customers, terminals, per_day
        self.number, self.now_ms, self.name = 0, START_MS, f"tx{seed}"
        self.ends, self.committed = [0] * PARTITIONS, [-1] * PARTITIONS
        self.due: list[Feedback] = []
        self.labels_sent = 0

    def spread_over(self, times: int) -> None:
        """Go on with `times` as many entities, each as busy as before."""
        self.customers, self.terminals = self.customers * times, self.terminals * times
        self.per_day *= times

    def transactions(self, n: int, among: range | None = None) -> list[Transaction]:
        """Return the next n transactions, of the customers `among` (None: all).

        Some of them become labels that wait in `due`.
        """
        chosen = range(self.customers) if among is None else among
        customers = self.random.integers(chosen.start, chosen.stop, n).tolist()
        terminals = self.random.integers(0, self.terminals, n).tolist()
        amounts = (self.random.lognormal(8, 0.8, n)).astype(int).tolist()
        chance = self.random.random((2, n))
        times = (self.now_ms + np.arange(1, n + 1) * DAY_MS / self.per_day).astype(int).tolist()
        batch = []
        for i, (customer, terminal, amount, t) in enumerate(
            zip(customers, terminals, amounts, times, strict=True), start=self.number
        ):
            entities = Entities(f"{customer}", f"{terminal}")
            batch.append(Transaction(1, f"{self.name}-{i}", t, "purchase", amount, "EUR", entities))
        for place in np.flatnonzero(chance[0] < LABELLED):
            label: Label = "fraud" if chance[1][place] < FRAUD else "genuine"
            self._will_be_labelled(batch[place], label)
        self.number += n
        self.now_ms = batch[-1].event_time_ms
        return batch

    def _will_be_labelled(self, paid: Transaction, label: Label) -> None:
        known_at = paid.event_time_ms + LABEL_AFTER_MS
        self.due.append(
            Feedback(1, paid.transaction_id, paid.event_time_ms, paid.entities, label, known_at)
        )

    def slices(self, batch: Sequence[Transaction]) -> list[Slice]:
        """Return a batch by partition; what the batch before brought counts as committed."""
        parts: list[list[Transaction]] = [[] for _ in range(PARTITIONS)]
        for transaction in batch:
            parts[int(transaction.entities.customer) % PARTITIONS].append(transaction)
        slices = []
        for p, part in enumerate(parts):
            begin, end = self.ends[p], self.ends[p] + len(part)
            slices.append(
                Slice(
                    partition=p,
                    previous_offset=begin - 1,
                    last_offset=end - 1,
                    committed_offset=self.committed[p],
                    offsets=list(range(begin, end)),
                    transactions=part,
                )
            )
            self.committed[p], self.ends[p] = begin - 1, end
        return slices

    def known_labels(self) -> list[Feedback]:
        """Return the labels that are known by now and were not returned before."""
        known = [label for label in self.due if label.labelled_at_ms <= self.now_ms]
        self.due = self.due[len(known) :]
        return known

    def send_labels(self, store: FeatureStore) -> None:
        """Apply the labels that are known by now."""
        known = self.known_labels()
        if not known:
            return
        first = self.labels_sent
        store.apply_labels(
            "feedback",
            previous_offset=first - 1,
            last_offset=first + len(known) - 1,
            offsets=range(first, first + len(known)),
            labels=known,
        )
        self.labels_sent += len(known)
