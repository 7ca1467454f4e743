"""What was really served and what analysts said of it, read from Kafka for the trainer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fraudstream.clients.topic_log import as_array, read_to_end
from fraudstream.core.errors import BadRecord, FraudstreamError
from fraudstream.core.feature_set import DAY_MS, FeatureSet
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import LATEST_MS, Feedback, decode_feedback

FEW = 20
"""Fewer scores than this, more than a day ahead of all others, have wrong clocks: they move no window."""


class _Others(msgspec.Struct, gc=False):
    """The features of a set that did not serve."""

    features: list[float]


class _Logged(msgspec.Struct, gc=False):
    """The fields of a score record that training needs; the others are skipped while decoding."""

    transaction_id: str
    event_time_ms: int
    customer: str
    feature_set: str
    features: list[float]
    duplicate_of: int | None = None
    other_sets: dict[str, _Others] = {}

    def features_of(self, feature_set: str) -> list[float] | None:
        """Return the features of a set, by hash; None if it was not live then."""
        if feature_set == self.feature_set:
            return self.features
        other = self.other_sets.get(feature_set)
        return None if other is None else other.features


_decoder = msgspec.json.Decoder(list[_Logged])


Window = Callable[[int], tuple[int, int]]
"""From what the newest event time is at least: after which event time, and until which, scores are needed.

It may only move on while that does: what it leaves behind is dropped.
"""


@dataclass(frozen=True)
class ScoreLog:
    """Scored transactions as columns in the order of reading, N rows; what was left out is counted.

    `transaction_ids` and `customers` are strings [N] in Arrow's memory; `event_time_ms` int64 [N];
    `features` float32 [N, F]. `outside` rows are not among the N, since the reader did not need them.
    `newest_ms` is the newest event time, up to `FEW` wrong clocks left out.
    """

    transaction_ids: "pa.ChunkedArray[Any]"
    customers: "pa.ChunkedArray[Any]"
    event_time_ms: npt.NDArray[np.int64]
    features: FloatArray
    duplicates: int
    other_feature_set: int
    outside: int = 0
    newest_ms: int = 0

    def ids(self) -> list[str]:
        """Return the transaction ids as Python has them, which takes three times the memory."""
        return [str(each) for each in self.transaction_ids.to_pylist()]

    @property
    def read(self) -> int:
        """Return the number of transactions with features of this set, those outside the window included."""
        return len(self.event_time_ms) + self.outside


@dataclass(frozen=True)
class _Block:
    """The rows of one batch."""

    ids: "pa.Array[Any]"
    customers: "pa.Array[Any]"
    times: npt.NDArray[np.int64]
    features: FloatArray
    oldest_ms: int
    newest_ms: int

    def __len__(self) -> int:
        return len(self.times)

    def within(self, after_ms: int, until_ms: int) -> "_Block":
        """Return the rows with event times in (after, until], in memory of their own."""
        if after_ms < self.oldest_ms and self.newest_ms <= until_ms:
            return self
        wanted = (self.times > after_ms) & (self.times <= until_ms)
        mask = pa.array(wanted)
        return _block(
            self.ids.filter(mask),
            self.customers.filter(mask),
            self.times[wanted],
            self.features[wanted],
        )


def _block(
    ids: "pa.Array[Any]",
    customers: "pa.Array[Any]",
    times: npt.NDArray[np.int64],
    features: FloatArray,
) -> _Block:
    oldest_ms, newest_ms = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    return _Block(ids, customers, times, features, oldest_ms, newest_ms)


class ScoreColumns:
    """Scores of one feature set as they are read; those outside the window are dropped meanwhile.

    What stays spans the window and, where the newest are far apart, the few ahead of it, so the order of the
    log does not matter.
    """

    def __init__(self, feature_set: FeatureSet, window: Window) -> None:
        self._hash, self._width = feature_set.hash, len(feature_set.features)
        self._window = window
        self._blocks: list[_Block] = []
        self._newest: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._dropped = self._duplicates = self._others = 0

    @property
    def rows(self) -> int:
        """Return the number of rows in memory."""
        return sum(map(len, self._blocks))

    @property
    def nbytes(self) -> int:
        """Return what the rows take."""
        arrays = [(b.ids, b.customers, b.times, b.features) for b in self._blocks]
        return sum(array.nbytes for block in arrays for array in block)

    def add(self, values: Sequence[bytes]) -> None:
        """Add a batch of records. Those with `duplicate_of` are left out: the transaction is there already.

        Raises:
            FraudstreamError: one of them is no score.
        """
        logged = _decoded(values)
        fresh = [record for record in logged if record.duplicate_of is None]
        rows = [(record, record.features_of(self._hash)) for record in fresh]
        ours = [(record, features) for record, features in rows if features is not None]
        self._duplicates += len(logged) - len(fresh)
        self._others += len(fresh) - len(ours)
        if not ours:
            return
        self._blocks.append(_block_of(ours))
        self._newest = np.sort(np.concatenate([self._newest, self._blocks[-1].times]))[-FEW:]
        self._drop()

    def log(self) -> ScoreLog:
        """Return what is there."""
        blocks = self._blocks
        none = np.empty((0, self._width), np.float32)
        return ScoreLog(
            transaction_ids=pa.chunked_array([block.ids for block in blocks], pa.string()),
            customers=pa.chunked_array([block.customers for block in blocks], pa.string()),
            event_time_ms=np.concatenate([none[:, 0].astype(np.int64), *(b.times for b in blocks)]),
            features=np.concatenate([none, *(block.features for block in blocks)]),
            duplicates=self._duplicates,
            other_feature_set=self._others,
            outside=self._dropped,
            newest_ms=self._newest_ms(),
        )

    def _newest_ms(self) -> int:
        """Return the newest event time of all, unless too few are near it."""
        if not len(self._newest):
            return 0
        first, last = int(self._newest[0]), int(self._newest[-1])
        alone = len(self._newest) == FEW and last - first > DAY_MS
        return first if alone else last

    def _drop(self) -> None:
        """Drop what is outside the window, though the newest may turn out to be the first of the few."""
        before = self.rows
        window = self._window(int(self._newest[0]) if len(self._newest) == FEW else 0)
        needed = [block.within(*window) for block in self._blocks]
        self._blocks = [block for block in needed if len(block)]
        self._dropped += before - self.rows


def _block_of(rows: list[tuple[_Logged, list[float]]]) -> _Block:
    return _block(
        pa.array([record.transaction_id for record, _ in rows], pa.string()),
        pa.array([record.customer for record, _ in rows], pa.string()),
        np.array([record.event_time_ms for record, _ in rows], np.int64),
        np.array([features for _, features in rows], np.float32),
    )


def everything(_newest_ms: int) -> tuple[int, int]:
    """Return a window of all times: all scores are needed."""
    return 0, LATEST_MS


def read_scores(
    settings: Settings, feature_set: FeatureSet, window: Window = everything
) -> ScoreLog:
    """Return all committed scores with features of `feature_set`, whether or not it served.

    Those outside `window` are counted, but take no memory.

    Raises:
        DependencyUnreachable: no broker answers.
        Refused: the topic does not exist.
        FraudstreamError: it holds something else.
    """
    columns = ScoreColumns(feature_set, window)
    for batch in read_to_end(settings, topic_name(settings.environment, "scores")):
        columns.add([message.value() or b"null" for message in batch])
    return columns.log()


def read_feedback(settings: Settings) -> Iterator[Feedback]:
    """Yield all readable labels in the order of their offsets; the unreadable are left to the scorer.

    Raises:
        DependencyUnreachable: no broker answers.
        Refused: the topic does not exist.
    """
    for batch in read_to_end(settings, topic_name(settings.environment, "feedback")):
        for message in batch:
            try:
                yield decode_feedback(message.value())
            except BadRecord:
                continue  # The scorer leaves it out as well, and has logged its offset and the reason.


def _decoded(values: Sequence[bytes]) -> list[_Logged]:
    """Decode a batch at once."""
    try:
        return _decoder.decode(as_array(values))
    except msgspec.DecodeError as exc:
        raise FraudstreamError(
            f"the topic scores holds a record that is no score ({exc}): "
            "train in an environment whose scores come from `fraudstream scorer` alone"
        ) from exc
