"""Rolls the feature state forward in place, from its marks to what is committed; emits nothing."""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import cast

import msgspec

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_snapshot import fill, newest_fitting
from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.clients.kafka import TopicFacts
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings, snapshot_folder
from scorer.batch import Message, decode
from scorer.labels import decode_labels
from scorer.passed_over import PassedOver
from scorer.status import Status

logger = logging.getLogger(__name__)

Ranges = dict[int, tuple[int, int]]
"""Offsets [from, to) by partition."""

FOLD_RECORDS = 1_000
"""Records of one call: the server takes some 15 ms for them."""
AHEAD = 4
"""Calls that are read and packed before the server has taken the one before."""
TOLD_EVERY_S = 1.0


class Packed(msgspec.Struct, frozen=True):
    """One call that is ready to be sent, and the number of records that it covers."""

    blob: bytes
    records: int


class Rebuild:
    """One worker's rebuilds. Right from any point on: it goes on from the marks, whoever set them."""

    def __init__(
        self,
        settings: Settings,
        store: FeatureStore,
        topics: tuple[TopicFacts, TopicFacts],
        status: Status,
        *,
        most: int = FOLD_RECORDS,
    ) -> None:
        """Take `most` records into a call: the server does nothing else meanwhile."""
        self._settings = settings
        self._most = most
        self._store = store
        self._transactions, self._feedback = topics
        self._status = status
        self._passed_over = PassedOver(settings, store.state.feature_set.hash)
        self._told_s = 0.0
        self._begun_s = 0.0

    def run(self, committed: Callable[[], dict[int, int]], beat: Callable[[], None]) -> None:
        """Bring the state to what is committed, and to the newest label.

        `beat` is called several times a second and may raise to end it.

        Raises:
            Refused: the log begins after what the state has.
            StateInDoubt: the state is no longer this worker's to rebuild, or was rolled back meanwhile.
            DependencyUnreachable: a server does not answer.
        """
        self._begun_s = self._told_s = monotonic_s()
        with TopicReader(self._settings) as reader:
            self._begin_with_snapshot(reader, self._missing(committed()), beat)
            while lacking := self._missing(committed()):
                self._check_log(reader, self._transactions, lacking)
                self._passed_over.refresh(reader, beat)
                self._status.rebuild_total += sum(end - begin for begin, end in lacking.values())
                self._fold(reader, lacking, beat)
            self._fold_labels(reader, beat)
        logger.info(
            "rebuilt %d records in %.1f s",
            self._status.rebuild_done,
            monotonic_s() - self._begun_s,
        )

    def _begin_with_snapshot(
        self, reader: TopicReader, lacking: Ranges, beat: Callable[[], None]
    ) -> None:
        """Fill an empty state, or one that ends before the log begins, from the newest snapshot that fits."""
        bounds = reader.bounds(self._transactions.name)
        if not any(begin <= bounds[partition][0] for partition, (begin, _) in lacking.items()):
            return
        topics = {"transactions": self._transactions.topic_id, "feedback": self._feedback.topic_id}
        found = newest_fitting(snapshot_folder(self._settings), self._store.state, topics)
        if found is None:
            return
        path, header = found
        marks = header.marks["transactions"]
        if all(marks.get(partition, -1) >= begin - 1 for partition, (begin, _) in lacking.items()):
            keys = fill(self._store.state, path, beat, proven=True)
            logger.info("the rebuild begins with snapshot %s: %d keys", path, keys)

    def _missing(self, committed: Mapping[int, int]) -> Ranges:
        marks = self._store.marks(self._transactions.topic_id, list(committed))
        return {p: (marks[p] + 1, end) for p, end in committed.items() if marks[p] + 1 < end}

    def _check_log(self, reader: TopicReader, topic: TopicFacts, wanted: Ranges) -> None:
        """Refuse to rebuild from a log that has lost what the state lacks.

        Raises:
            Refused: names the partition, where the state ends, where the log begins, and what to do.
        """
        for partition, (low, high) in reader.bounds(topic.name).items():
            begin, end = wanted.get(partition, (low, low))
            if begin < low or end > high:
                raise Refused(
                    f"the features lost what they had after offset {begin - 1} of partition {partition} "
                    f"of topic {topic.name}, and the log has only {low} to {high}: they cannot be rebuilt "
                    "from it. Restore a snapshot that goes further with `fraudstream features restore "
                    "FILE`, or a copy of the Redis data, and start the worker again"
                )

    def _fold(self, reader: TopicReader, ranges: Ranges, beat: Callable[[], None]) -> None:
        """Send what a thread reads and packs ahead, one call after the other."""
        ahead = ReadAhead(lambda: self._pack(reader, ranges))
        try:
            for packed in ahead.each(beat):
                self._store.fold(self._transactions.topic_id, packed.blob)
                self._status.rebuild_done += packed.records
                self._tell()
                beat()
        finally:
            ahead.end()

    def _pack(self, reader: TopicReader, ranges: Ranges) -> Iterator[Packed]:
        """Yield calls; what was a dead letter says so, whatever limits and settings are now."""
        positions = {partition: begin for partition, (begin, _) in ranges.items()}
        for messages in reader.batches(self._transactions.name, ranges, most=self._most):
            batch = decode(
                cast("list[Message]", messages),
                positions,
                polled_at_ms=now_ms(),
                max_ahead_days=inf,
                passed_over=self._passed_over.places,
            )
            slices = [
                Slice(
                    partition=part.partition,
                    previous_offset=part.previous_offset,
                    last_offset=part.last_offset,
                    committed_offset=part.last_offset,
                    offsets=[message.offset() for message in part.messages],
                    transactions=part.transactions,
                )
                for part in batch.parts
            ]
            positions |= {part.partition: part.last_offset + 1 for part in batch.parts}
            yield Packed(self._store.pack_fold(self._transactions.topic_id, slices), len(messages))

    def _fold_labels(self, reader: TopicReader, beat: Callable[[], None]) -> None:
        """Apply the labels after the mark: what of them counts at a time stands in each of them."""
        topic = self._feedback
        position = self._store.marks(topic.topic_id, [0])[0] + 1
        wanted = {0: (position, reader.bounds(topic.name)[0][1])}
        self._check_log(reader, topic, wanted)
        for messages in reader.batches(topic.name, wanted, most=self._most):
            offsets, labels = decode_labels(messages)
            last = int(messages[-1].offset() or 0)
            self._store.apply_labels(
                topic.topic_id,
                previous_offset=position - 1,
                last_offset=last,
                offsets=offsets,
                labels=labels,
            )
            position = last + 1
            beat()

    def _tell(self) -> None:
        now_s = monotonic_s()
        if now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        done, total = self._status.rebuild_done, self._status.rebuild_total
        rate = done / (now_s - self._begun_s)
        logger.info("rebuilding the features: %d of %d records, %.0f a second", done, total, rate)


class ReadAhead:
    """A thread that makes the next calls while the server works on the present one."""

    def __init__(self, make: Callable[[], Iterator[Packed]]) -> None:
        self._make = make
        self._queue: queue.Queue[Packed | Exception | None] = queue.Queue(AHEAD)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def each(self, beat: Callable[[], None]) -> Iterator[Packed]:
        """Yield the calls in order, raising what the thread ran into; `beat` while waiting for one."""
        while True:
            try:
                found = self._queue.get(timeout=0.1)
            except queue.Empty:
                beat()
                continue
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found

    def end(self) -> None:
        """End the thread and wait until it no longer uses what it reads from."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for packed in self._make():
                if not self._put(packed):
                    return
            self._put(None)
        except Exception as exc:  # noqa: BLE001 - raised where the calls are taken
            self._put(exc)

    def _put(self, item: Packed | Exception | None) -> bool:
        """Put an item when there is room; False if nobody wants it any more."""
        while not self._ended.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
