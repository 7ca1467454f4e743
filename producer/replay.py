"""The replay: source -> pace -> labels due -> send; a killed one goes on without loss or repetition."""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.kafka_log import SEARCH_BACK, last_records
from fraudstream.clients.kafka_producers import (
    Header,
    Outgoing,
    RecordProducer,
    open_producer,
)
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import encode
from producer.alone import alone
from producer.pace import AtRate, AtSpeed, Pace, Schedule, StoppableTimer
from producer.resume import RESTARTED, Sent, nothing_sent, read_sent
from producer.sources import Source
from producer.timeline import DueLabel, LabelOrder, Timeline

logger = logging.getLogger(__name__)

Client = Literal["auto", "kafka-python", "confluent"]

CHUNK_ROWS = 2_000
"""Labels are sent, and waited for, once a chunk."""
KAFKA_PYTHON_PER_S = 2_000.0
"""Above this rate `auto` takes the confluent client (docs/replay.md has the figures)."""
CLOSING_S = 4.0
PROGRESS_S = 0.1


class ReplayPlan(Struct, frozen=True, kw_only=True):
    """How a source is sent. `limit` counts transactions from the beginning of the cut, over all passes."""

    pace: Pace = AtRate(500)
    client: Client = "auto"
    limit: int | None = None
    loop: bool = False
    labels: bool = True
    all_labels: bool = False
    """Also send, at the end, the labels that become known after the last transaction."""
    resume: bool = True
    search_back: int = SEARCH_BACK


class Progress(Struct, frozen=True):
    """Where a running replay is: `position` of `total` rows, `sent` of them and `labels` by this run.

    `silent_s` tells, whenever it is asked, for how long Kafka has taken nothing of what was handed over.
    """

    position: int
    total: int
    sent: int
    labels: int
    event_time_ms: int
    lag_s: float
    seconds: float
    silent_s: Callable[[], float]


class ReplayStats(Struct, frozen=True, kw_only=True):
    """What a replay did. `total`: rows of the plan; `already_sent`: those the topic held before.

    `lag_s` is how late the last row was and `most_lag_s` the worst; 0 without a pace. `undelivered` records
    were handed over and not acknowledged when the replay was stopped: the next one looks which arrived.
    """

    source: str
    client: str
    total: int
    already_sent: int
    resumed_from_row: int | None
    sent: int
    labels: int
    by_partition: list[int]
    first_event_time_ms: int | None
    last_event_time_ms: int | None
    seconds: float
    rate_per_s: float
    asked_per_s: float | None
    lag_s: float
    most_lag_s: float
    undelivered: int
    finished: bool


def replay_table(
    settings: Settings,
    source: Source,
    plan: ReplayPlan,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> ReplayStats:
    """Send rows `source.start` to `source.stop` to `transactions`, the labels known by then to `feedback`.

    `settings.kafka_bootstrap` must be filled. Setting `stop` ends the replay after its present chunk.
    With `plan.resume`, rows and labels that the topics hold already are not sent again.

    Raises:
        DependencyUnreachable: the broker does not answer within `connect_timeout_ms`.
        DeliveryFailed: Kafka did not take a record; nothing after it was sent to its partition.
        Refused: a topic does not exist, another replay of the source runs, or it cannot be known what
            was sent before.
    """
    with alone(settings, source.identity):
        return _replayed(settings, source, plan, on_progress or _ignore, stop or threading.Event())


def _replayed(
    settings: Settings,
    source: Source,
    plan: ReplayPlan,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
) -> ReplayStats:
    topics = _topics(settings)
    partitions = topic_facts(settings, list(topics))[topics[0]].partitions
    timeline = Timeline(source, partitions, loop=plan.loop, limit=plan.limit)
    if plan.resume:
        sent = read_sent(settings, topics, partitions, source.identity, plan.search_back)
    else:
        sent = nothing_sent(partitions, now_ms())
    producer = open_producer(settings, chosen_client(plan, timeline), stop)
    try:
        replay = _Replay(settings, timeline, plan, producer, sent)
        return replay.run(on_progress, stop)
    finally:
        producer.close()


def chosen_client(plan: ReplayPlan, timeline: Timeline) -> str:
    """Return the client for a plan: for `auto`, confluent where the rate asks for it."""
    if plan.client != "auto":
        return plan.client
    if isinstance(plan.pace, AtRate):
        fast = plan.pace.per_s > KAFKA_PYTHON_PER_S
    elif isinstance(plan.pace, AtSpeed):
        fast = timeline.most_in(plan.pace.factor * 1000) > KAFKA_PYTHON_PER_S
    else:
        fast = True
    return "confluent" if fast else "kafka-python"


class _Replay:
    """One run: chunk after chunk, each behind the labels that became known by its last event time."""

    def __init__(
        self,
        settings: Settings,
        timeline: Timeline,
        plan: ReplayPlan,
        producer: RecordProducer,
        sent: Sent,
    ) -> None:
        self._settings = settings
        self._timeline = timeline
        self._plan = plan
        self._producer = producer
        self._transactions, self._feedback = _topics(settings)
        self._last_numbers = sent.last_numbers
        self._source_header: Header = ("source", timeline.source.identity.encode())
        self._restarted = _decimal(RESTARTED, sent.restarted_ms) if sent.restarted_ms else None
        self._feedback_offset = sent.label_offset
        self._labelled = LabelOrder(timeline.before_ms(), _AFTER_ALL)
        if sent.label_number >= 0:
            self._labelled = max(self._labelled, timeline.label_order(sent.label_number))
        self._first = timeline.first_unsent(sent.last_numbers)
        self._resumed = bool(sent.last_numbers.max() >= 0)
        self._position = self._first
        self._sent = self._labels = 0
        self._by_partition: NDArray[np.int64] = np.zeros_like(sent.last_numbers)
        self._lag_s = self._most_lag_s = 0.0
        self._began_s = monotonic_s()

    def run(self, on_progress: Callable[[Progress], None], stop: threading.Event) -> ReplayStats:
        """Send all that is left, or what is due until `stop`; then wait for what was handed over."""
        if self._first < self._timeline.total:
            self._send_rows(on_progress, stop)
        finished = self._position >= self._timeline.total
        if finished and self._plan.labels and self._plan.all_labels:
            self._send_labels(math.inf, self._timeline.total)
        wait_s = math.inf if finished else CLOSING_S
        undelivered = self._producer.flush(wait_s)
        on_progress(self._progress())
        return self._stats(undelivered, finished)

    def _send_rows(self, on_progress: Callable[[Progress], None], stop: threading.Event) -> None:
        timeline = self._timeline
        first_ms = timeline.event_time_ms(self._first)
        schedule = Schedule(
            self._plan.pace,
            StoppableTimer(stop),
            first_position=self._first,
            first_event_ms=first_ms,
        )
        told_s = -PROGRESS_S
        while self._position < timeline.total and not stop.is_set():
            due = schedule.next_due()
            if stop.is_set():
                return
            first = self._position
            last = timeline.stop_of(due, first, CHUNK_ROWS)
            if self._plan.labels:
                self._send_labels(timeline.known_until(due, first, last), last)
            if last > first:
                self._send_chunk(first, last)
                self._note_lag(schedule)
            self._producer.check()
            if schedule.elapsed_s() - told_s >= PROGRESS_S:
                told_s = schedule.elapsed_s()
                on_progress(self._progress())

    def _send_chunk(self, first: int, last: int) -> None:
        """Send positions [first, last) but those that the topic holds already."""
        unsent = self._timeline.unsent(first, last, self._last_numbers)
        self._producer.send(self._transactions, self._outgoing(first, last, unsent))
        of_chunk = self._timeline.partitions(first, last)[unsent]
        self._by_partition += np.bincount(of_chunk, minlength=len(self._by_partition))
        self._sent += len(of_chunk)
        self._position = last

    def _outgoing(self, first: int, last: int, unsent: NDArray[np.bool_]) -> Iterator[Outgoing]:
        common = self._common(self._timeline.pass_of(first))
        if self._feedback_offset >= 0:
            common.append(_decimal("after_feedback", self._feedback_offset))
        rows = self._timeline.chunk(first, last)
        wanted = rows if unsent.all() else _those(rows, unsent)
        for key, value, partition, number in wanted:
            yield key, value, partition, [*common, ("row", b"%d" % number)]

    def _common(self, done: int) -> list[Header]:
        headers = [self._source_header]
        if done:
            headers.append(_decimal("pass", done))
        if self._restarted:
            headers.append(self._restarted)
        return headers

    def _send_labels(self, until_ms: float, position: int) -> None:
        """Send the labels known by `until_ms` that were not sent yet, and wait for their offsets."""
        due = self._timeline.labels_due(self._labelled, until_ms, position)
        if due:
            records = [self._label_record(label) for label in due]
            offset = self._producer.send_and_wait(self._feedback, records)
            self._feedback_offset = offset if offset >= 0 else self._offset_in_log()
            self._labels += len(due)
            self._labelled = due[-1].order

    def _offset_in_log(self) -> int:
        """Return the offset of the last label: a broker that took a retry as a duplicate tells none."""
        source = self._timeline.source.identity
        return last_records(self._settings, self._feedback, 1, source=source)[0].offset

    def _label_record(self, label: DueLabel) -> Outgoing:
        number = label.order.number
        headers = [*self._common(number // self._timeline.rows_of_table), _decimal("row", number)]
        return label.record.transaction_id.encode(), encode(label.record), 0, headers

    def _note_lag(self, schedule: Schedule) -> None:
        last = self._position - 1
        self._lag_s = schedule.lag_s(last, self._timeline.event_time_ms(last))
        self._most_lag_s = max(self._most_lag_s, self._lag_s)

    def _progress(self) -> Progress:
        at = max(self._position - 1, 0)
        return Progress(
            position=self._position,
            total=self._timeline.total,
            sent=self._sent,
            labels=self._labels,
            event_time_ms=self._timeline.event_time_ms(at),
            lag_s=self._lag_s,
            seconds=monotonic_s() - self._began_s,
            silent_s=self._producer.silent_s,
        )

    def _stats(self, undelivered: int, finished: bool) -> ReplayStats:
        timeline = self._timeline
        seconds = monotonic_s() - self._began_s
        moved = self._position > self._first
        return ReplayStats(
            source=timeline.source.identity,
            client=self._producer.client,
            total=timeline.total,
            already_sent=self._position - self._sent,
            resumed_from_row=timeline.number(self._first) if self._resumed and moved else None,
            sent=self._sent,
            labels=self._labels,
            by_partition=self._by_partition.tolist(),
            first_event_time_ms=timeline.event_time_ms(self._first) if moved else None,
            last_event_time_ms=timeline.event_time_ms(self._position - 1) if moved else None,
            seconds=seconds,
            rate_per_s=self._sent / seconds if seconds else 0.0,
            asked_per_s=self._plan.pace.per_s if isinstance(self._plan.pace, AtRate) else None,
            lag_s=self._lag_s,
            most_lag_s=self._most_lag_s,
            undelivered=undelivered,
            finished=finished,
        )


_AFTER_ALL = 2**62


def _topics(settings: Settings) -> tuple[str, str]:
    return (
        topic_name(settings.environment, "transactions"),
        topic_name(settings.environment, "feedback"),
    )


def _decimal(name: str, number: int) -> Header:
    return name, b"%d" % number


def _those(
    rows: Iterator[tuple[bytes, bytes, int, int]], wanted: NDArray[np.bool_]
) -> Iterator[tuple[bytes, bytes, int, int]]:
    return (row for row, keep in zip(rows, wanted.tolist(), strict=True) if keep)


def _ignore(_: Progress) -> None:
    """Report nothing."""
