"""Hop 2 of training: logged scores and labels become rows that may be learned from."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraudstream.clients.score_log import ScoreLog
from fraudstream.core.errors import TooLittle
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.model import FloatArray
from fraudstream.core.transaction import LATEST_MS, Feedback

MIN_FRAUDS = 20
"""Fewer known frauds than this in the fitted part teach nothing that lasts."""
MIN_VALIDATION_FRAUDS = 5


@dataclass(frozen=True)
class Dataset:
    """N labelled transactions in order of event time, then of transaction id.

    `features` float32 [N, F], `labels` bool [N] (True is fraud), `event_time_ms` int64 [N],
    `customers` str [N].
    """

    features: FloatArray
    labels: npt.NDArray[np.bool_]
    event_time_ms: npt.NDArray[np.int64]
    customers: npt.NDArray[np.str_]

    def rows(self, wanted: npt.NDArray[np.bool_] | slice) -> "Dataset":
        """Return the rows where `wanted` bool [N] is True; those of a slice share the memory of these."""
        return Dataset(
            self.features[wanted],
            self.labels[wanted],
            self.event_time_ms[wanted],
            self.customers[wanted],
        )


def window(
    newest_ms: int, *, as_of_ms: int | None, label_delay_ms: int, days: int | None
) -> tuple[int, int]:
    """Return after which event time, and until which, scores teach or set the threshold.

    The newest `days` that are mature as of `as_of_ms` (0: all of history, without `days`), and what came
    since. Without `as_of_ms` the newest event time stands for it, so the window moves as that grows.
    """
    at_ms, until_ms = (newest_ms, LATEST_MS) if as_of_ms is None else (as_of_ms, as_of_ms)
    return 0 if days is None else at_ms - label_delay_ms - days * DAY_MS, until_ms


def of_transactions(
    feedback: Iterable[Feedback], ids: "pa.ChunkedArray[Any]"
) -> Iterator[Feedback]:
    """Yield the labels of these transactions, and of hardly any other.

    By hashes, 8 bytes a transaction: a set of the ids would take more than all that is known of them.
    """
    hashes = [
        np.fromiter(map(hash, chunk.to_pylist()), np.int64, len(chunk)) for chunk in ids.chunks
    ]
    known = array("q", np.sort(np.concatenate([np.empty(0, np.int64), *hashes])).tobytes())
    for answer in feedback:
        mark = hash(answer.transaction_id)
        place = bisect_left(known, mark)
        if place < len(known) and known[place] == mark:
            yield answer


def labels_in_force(feedback: Iterable[Feedback], as_of_ms: int) -> dict[str, str]:
    """Return the label in force at `as_of_ms` by transaction id.

    Of the labels with labelled_at_ms <= as_of_ms the latest wins, ties by place in `feedback`
    (offset order). `unsure` in force stands in the result; it counts as no label.
    """
    latest: dict[str, tuple[int, str]] = {}
    for answer in feedback:
        if answer.labelled_at_ms > as_of_ms:
            continue
        known_at_ms, _ = latest.get(answer.transaction_id, (0, ""))
        if answer.labelled_at_ms >= known_at_ms:
            latest[answer.transaction_id] = answer.labelled_at_ms, answer.label
    return {transaction_id: label for transaction_id, (_, label) in latest.items()}


def build(
    log: ScoreLog,
    labels: dict[str, str],
    *,
    as_of_ms: int,
    label_delay_ms: int,
    days: int | None = None,
) -> Dataset:
    """Return the rows whose label is mature at `as_of_ms`: event time + label delay <= as_of.

    A row is fraud if the label in force says so, genuine otherwise. `days` keeps only the newest days
    of them.
    """
    times = log.event_time_ms
    after_ms, _ = window(as_of_ms, as_of_ms=as_of_ms, label_delay_ms=label_delay_ms, days=days)
    mature = (times > after_ms) & (times <= as_of_ms - label_delay_ms)
    order = _in_order(log, mature)
    frauds = pa.array([each for each, label in labels.items() if label == "fraud"], pa.string())
    fraud = pc.is_in(log.transaction_ids, value_set=frauds).to_numpy()
    return Dataset(
        features=log.features[order],
        labels=fraud[order],
        event_time_ms=times[order],
        customers=_text(log.customers, order),
    )


def _text(column: "pa.ChunkedArray[Any]", rows: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Return these rows of a column, by way of its few different values: without a Python object a row."""
    chosen = column.take(rows).combine_chunks().dictionary_encode()
    values: npt.NDArray[np.str_] = np.array(chosen.dictionary.to_pylist(), np.str_)
    places: npt.NDArray[np.int32] = chosen.indices.to_numpy()
    return values[places]


def newest(log: ScoreLog, *, as_of_ms: int, label_delay_ms: int) -> FloatArray:
    """Return features float32 [M, F] of the rows that are too young to learn from: traffic as it is now."""
    young = (log.event_time_ms > as_of_ms - label_delay_ms) & (log.event_time_ms <= as_of_ms)
    return log.features[_in_order(log, young)]


def _in_order(log: ScoreLog, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the places of the wanted rows by event time, then id: Kafka's partitions come in any order."""
    rows = np.flatnonzero(wanted)
    ids = log.transaction_ids.filter(pa.array(wanted))
    keys = pa.table({"event_time_ms": log.event_time_ms[rows], "transaction_id": ids})
    order: npt.NDArray[np.int64] = pc.sort_indices(
        keys, sort_keys=[("event_time_ms", "ascending"), ("transaction_id", "ascending")]
    ).to_numpy()
    return rows[order]


def split(dataset: Dataset, validation_share: float) -> tuple[Dataset, Dataset, int]:
    """Return the earlier rows to fit, the later `validation_share` of them to validate, and the border in ms.

    Transactions of the same millisecond stay together, on the validation side.

    Raises:
        TooLittle: no mature row, or too few frauds on either side; says how many there are.
    """
    if len(dataset.labels) == 0:
        raise TooLittle(
            "no scored transaction is old enough to have a mature label: replay more history "
            "(the label delay is 7 days of event time), or give a later --as-of"
        )
    border_ms = int(dataset.event_time_ms[int(len(dataset.labels) * (1 - validation_share))])
    first = int(np.searchsorted(dataset.event_time_ms, border_ms))
    fit, validation = dataset.rows(slice(first)), dataset.rows(slice(first, None))
    frauds, validation_frauds = int(fit.labels.sum()), int(validation.labels.sum())
    if frauds < MIN_FRAUDS or validation_frauds < MIN_VALIDATION_FRAUDS:
        raise TooLittle(
            f"{frauds} known frauds in {len(fit.labels):,} transactions to fit and {validation_frauds} in "
            f"{len(validation.labels):,} to validate; at least {MIN_FRAUDS} and {MIN_VALIDATION_FRAUDS} "
            "are needed: replay more history with its labels, or give a later --as-of"
        )
    return fit, validation, border_ms
