"""The committed scores as columns: what the oracle compares, read by an independent client."""

from array import array
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from verify.chaos.sent import digest

NO_MODEL = ""
NOWHERE = -1


class _Row(msgspec.Struct, gc=False):
    """The fields of a score that are compared."""

    transaction_id: str
    event_time_ms: int
    customer: str
    terminal: str
    amount_minor: int
    currency: str
    source_partition: int
    source_offset: int
    source_timestamp_ms: int
    apply_seq: int
    features: list[float]
    feature_set: str
    score: float | None = None
    decision: str = ""
    threshold: float | None = None
    model_version: str | None = None
    duplicate_of: int | None = None


_decoder = msgspec.json.Decoder(_Row)

DECISIONS = {"none": 0, "pass": 1, "alert": 2}


class Scores:
    """All scores in the order of their reading; 96 bytes each. One that cannot be read is counted only."""

    def __init__(self, width: int, feature_set: str) -> None:
        self._width = width
        self._feature_set = feature_set
        self._partitions, self._offsets, self._seqs = array("i"), array("q"), array("q")
        self._duplicates = array("q")
        self._features, self._scores = array("f"), array("f")
        self._versions, self._decisions = array("i"), array("b")
        self._thresholds, self._said = array("d"), array("q")
        self.names: list[str] = [NO_MODEL]
        """The versions that scored; a score has the place of its own among them."""
        self.unreadable = 0

    def add(self, value: bytes | None, key: bytes | None) -> None:
        """Keep one score, by the value and key of its record."""
        try:
            row = _decoder.decode(value or b"")
        except (ValueError, RecursionError):
            self.unreadable += 1
            return
        if len(row.features) != self._width or row.feature_set != self._feature_set:
            self.unreadable += 1
            return
        version = row.model_version or NO_MODEL
        if version not in self.names:
            self.names.append(version)
        self._partitions.append(row.source_partition)
        self._offsets.append(row.source_offset)
        self._seqs.append(row.apply_seq)
        self._features.extend(row.features)
        self._scores.append(np.nan if row.score is None else row.score)
        self._versions.append(self.names.index(version))
        self._thresholds.append(np.nan if row.threshold is None else row.threshold)
        self._said.append(_said(row, key))
        self._decisions.append(DECISIONS.get(row.decision, NOWHERE))
        self._duplicates.append(NOWHERE if row.duplicate_of is None else row.duplicate_of)

    def __len__(self) -> int:
        return len(self._seqs)

    def in_order(self) -> npt.NDArray[np.intp]:
        """Return the places of the scores in order of apply_seq."""
        return np.argsort(self.seqs, kind="stable")

    @property
    def seqs(self) -> npt.NDArray[np.int64]:
        """Return the places of application, int64 [N]."""
        return np.frombuffer(self._seqs, np.int64)

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Return the features as served, float32 [N, F]."""
        return np.frombuffer(self._features, np.float32).reshape(-1, self._width)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Return the probabilities as served, float32 [N], NaN without a model."""
        return np.frombuffer(self._scores, np.float32)

    @property
    def versions(self) -> npt.NDArray[np.int32]:
        """Return the place of each score's version in `names`, int32 [N]."""
        return np.frombuffer(self._versions, np.int32)

    @property
    def decisions(self) -> npt.NDArray[np.int8]:
        """Return the decisions as in `DECISIONS`, int8 [N]."""
        return np.frombuffer(self._decisions, np.int8)

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """Return the thresholds as served, float64 [N], NaN without a model."""
        return np.frombuffer(self._thresholds, np.float64)

    def said(self, i: int) -> int:
        """Return the `digest` of what score i says of its transaction."""
        return self._said[i]

    def place(self, i: int) -> tuple[int, int]:
        """Return partition and offset of the transaction of score i."""
        return self._partitions[i], self._offsets[i]

    def duplicate_of(self, i: int) -> int:
        """Return the offset of the first transaction of the same id, -1 for none."""
        return self._duplicates[i]

    def row(self, i: int) -> tuple[float, ...]:
        """Return the features of score i."""
        features: Any = self._features[i * self._width : (i + 1) * self._width]
        return tuple(features)


def _said(row: _Row, key: bytes | None) -> int:
    """Return the digest of what a score says of its transaction, its record's key included."""
    body = (
        row.transaction_id,
        row.event_time_ms,
        row.customer,
        row.terminal,
        row.amount_minor,
        row.currency,
    )
    return digest((key, row.source_timestamp_ms), body)
