"""Random streams for the feature store: several partitions, late data, equal times, duplicates, labels."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from fraudstream.clients import feature_state
from fraudstream.clients.feature_library import Library, build_library, library_source
from fraudstream.clients.feature_store import Applied, FeatureStore, Slice
from fraudstream.core.feature_set import DAY_MS, NINE, FeatureSet
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Entities, Feedback, Label, Transaction
from fraudstream.core.twin import Twin, TwinReply

START_MS = 1_700_000_000_000
LABELS: tuple[Label, ...] = ("fraud", "fraud", "genuine", "unsure")


Connect = Callable[..., FeatureStore]
TOPIC = "transactions-id"
BEGAN_MS = START_MS
"""When states begin under `standing_clock`."""


@contextmanager
def standing_clock() -> Iterator[None]:
    """Let new states begin at one time, so that those to which the same happens are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_state, "now_ms", lambda: BEGAN_MS)
        yield


@contextmanager
def connections(settings: Settings) -> Iterator[Connect]:
    """Yield what connects to the test's environment; `suffix` makes another one. Closes all at the end."""
    stores = []

    def make(suffix: str = "", feature_set: FeatureSet = NINE) -> FeatureStore:
        store = FeatureStore.connect(
            settings.redis_url,
            settings.environment + suffix,
            feature_set,
            connect_timeout_ms=settings.connect_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
        )
        stores.append(store)
        return store

    try:
        with standing_clock():
            yield make
    finally:
        for store in stores:
            store.close()


def mutated(*changes: tuple[str, str]) -> Callable[[FeatureSet], Library]:
    """Return what builds the library with each (old, new) of `changes` replaced in its source."""

    def build(feature_set: FeatureSet) -> Library:
        source = library_source(feature_set)
        for old, new in changes:
            assert old in source, f"{old!r} does not stand in the library"
            source = source.replace(old, new)
        return build_library(feature_set, source)

    return build


class Stream:
    """A source of transactions and labels; everything follows from the seed.

    Few customers and terminals, so that states are deep; times on a grid of an hour for a third, so that
    equal times are common; 5 % late within retention, 1 % up to 100 days late; 2 % sent twice.
    """

    def __init__(
        self, seed: int, *, customers: int = 40, terminals: int = 25, days: float = 0.01
    ) -> None:
        self.random = random.Random(seed)
        self.customers, self.terminals, self.days = customers, terminals, days
        self.sent: list[Transaction] = []

    def transaction(self) -> Transaction:
        """Return the next transaction."""
        r = self.random
        n = len(self.sent)
        if n and r.random() < 0.02:
            return r.choice(self.sent[-300:])
        t = START_MS + round(n * self.days * DAY_MS) + r.randrange(3_600_000)
        how_late = r.random()
        if how_late < 0.05:
            t -= r.randrange(9 * DAY_MS)
        elif how_late < 0.06:
            t -= r.randrange(100 * DAY_MS)
        if r.random() < 0.33:
            t -= t % 3_600_000
        entities = Entities(
            f"customer-{r.randrange(self.customers)}", f"terminal-{r.randrange(self.terminals)}"
        )
        amount = int(r.lognormvariate(8.5, 0.9)) if r.random() > 0.01 else 0
        made = Transaction(1, f"tx-{n}", t, "purchase", amount, "EUR", entities)
        self.sent.append(made)
        return made

    def label(self) -> Feedback:
        """Return a label on one of the last 300 transactions, at its time up to 12 days later."""
        r = self.random
        about = r.choice(self.sent[-300:])
        return Feedback(
            1,
            about.transaction_id,
            about.event_time_ms,
            about.entities,
            r.choice(LABELS),
            about.event_time_ms + r.randrange(48) * DAY_MS // 4,
        )


class Log:
    """Partitions of a topic as lists; a record's offset is its place. None: undecodable."""

    def __init__(self, partitions: int) -> None:
        self.partitions: list[list[Transaction | None]] = [[] for _ in range(partitions)]

    def append(self, transaction: Transaction) -> None:
        """Append to the customer's partition."""
        customer = int(transaction.entities.customer.rpartition("-")[2])
        self.partitions[customer % len(self.partitions)].append(transaction)

    def slice(self, partition: int, begin: int, end: int, committed: int = -1) -> Slice:
        """Return offsets begin..end (end excluded) as a slice."""
        records = self.partitions[partition][begin:end]
        return Slice(
            partition=partition,
            previous_offset=begin - 1,
            last_offset=end - 1,
            committed_offset=committed,
            offsets=[begin + i for i, record in enumerate(records) if record is not None],
            transactions=[record for record in records if record is not None],
        )


def twin_replies(twin: Twin, slices: Sequence[Slice]) -> list[TwinReply]:
    """Apply slices to the twin, in order."""
    return [
        twin.apply(part.partition, offset, transaction)
        for part in slices
        for offset, transaction in zip(part.offsets, part.transactions, strict=True)
    ]


def rows(applied: Applied) -> list[TwinReply]:
    """Return the rows of a reply in the twin's form; NaN never equals, so a NaN is always a difference."""
    return [
        TwinReply(tuple(features), duplicate_of, beyond_retention=beyond, truncated=truncated)
        for features, duplicate_of, beyond, truncated in zip(
            applied.features.tolist(),
            applied.duplicate_of.tolist(),
            applied.beyond_retention.tolist(),
            applied.truncated.tolist(),
            strict=True,
        )
    ]


def send_labels(store: FeatureStore, labels: Sequence[Feedback], first: int) -> int:
    """Apply labels that stand at offset `first` and after; return how many were new."""
    return store.apply_labels(
        "feedback-id",
        previous_offset=first - 1,
        last_offset=first + len(labels) - 1,
        offsets=range(first, first + len(labels)),
        labels=labels,
    )


def batches(
    stream: Stream, n: int, partitions: int
) -> Iterator[tuple[list[Slice], list[Feedback]]]:
    """Yield batches of 1 to 500 transactions until n are sent, each followed by its labels."""
    log = Log(partitions)
    ends = [0] * partitions
    sent = 0
    while sent < n:
        size = min(stream.random.choice((1, 20, 200, 500)), n - sent)
        for _ in range(size):
            log.append(stream.transaction())
        sent += size
        slices = [
            log.slice(p, begin, len(log.partitions[p]), begin - 1)
            for p, begin in enumerate(ends)
            if begin < len(log.partitions[p])
        ]
        ends = [len(records) for records in log.partitions]
        yield slices, [stream.label() for _ in range(stream.random.randrange(size // 10 + 2))]


def one(transaction: Transaction, offset: int = 0, *, committed: int = -1) -> list[Slice]:
    """Return one record of partition 0 as a batch."""
    return [
        Slice(
            partition=0,
            previous_offset=offset - 1,
            last_offset=offset,
            committed_offset=committed,
            offsets=[offset],
            transactions=[transaction],
        )
    ]
