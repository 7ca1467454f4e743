"""The rows of a source laid end to end, pass after pass: positions, partitions, records, labels due."""

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.partitioner import partition_of
from fraudstream.core.transaction import LATEST_MS, Feedback, encode
from producer.pace import Due
from producer.sources import Source, event_times, feedback, labels, records

MAX_ID_LENGTH = 64

Ints = NDArray[np.int64]


class LabelOrder(Struct, frozen=True, order=True):
    """The place of a label among all labels: when it became known, then the number of its row."""

    labelled_at_ms: float
    number: int = -1


class DueLabel(Struct, frozen=True):
    """A label that became known, its place, and its record."""

    order: LabelOrder
    record: Feedback


class Timeline:
    """What a replay sends, by position: 0 is the first row of the cut, and passes follow each other.

    The number of a row is its index in the whole table, plus the table's length for each pass before;
    it stands in the header `row` and never changes with the cut. In pass p > 0 event times are later
    by p times `period_ms` (whole days) and transaction ids end in `~p`.
    """

    def __init__(
        self, source: Source, partitions: int, *, loop: bool = False, limit: int | None = None
    ) -> None:
        self.source = source
        self.length = source.stop - source.start
        self.rows_of_table = source.table.num_rows
        self._times = event_times(source.table)
        span_ms = int(self._times[source.stop - 1] - self._times[source.start])
        self.period_ms = (span_ms // DAY_MS + 1) * DAY_MS
        self.total = self._total(loop, limit)
        self._partitions, self._keys, self._key_of_row = _keyed(source, partitions)
        self._reports = _Reports(source)

    def number(self, position: int) -> int:
        """Return the number of the row at `position`."""
        done, index = divmod(position, self.length)
        return done * self.rows_of_table + self.source.start + index

    def event_time_ms(self, position: int) -> int:
        """Return the event time of the row at `position`, shifted by its pass."""
        done, index = divmod(position, self.length)
        return int(self._times[self.source.start + index]) + done * self.period_ms

    def before_ms(self) -> float:
        """Return the event time of the row before the cut: labels known by then belong to what was before."""
        return float(self._times[self.source.start - 1]) if self.source.start else -math.inf

    def first_unsent(self, last_numbers: Ints) -> int:
        """Return the first position not sent yet; `last_numbers` [P]: the last by partition, -1 none."""
        position = max(int(last_numbers.min()), 0) // self.rows_of_table * self.length
        while position < self.total:
            unsent = np.flatnonzero(self.unsent(position, position + self.length, last_numbers))
            if len(unsent):
                return min(position + int(unsent[0]), self.total)
            position += self.length
        return self.total

    def unsent(self, first: int, stop: int, last_numbers: Ints) -> NDArray[np.bool_]:
        """Return for positions [first, stop) of one pass whether their partition's last number is below."""
        index = first % self.length
        numbers = np.arange(stop - first) + self.number(first)
        of_row = self._partitions[index : index + stop - first]
        above: NDArray[np.bool_] = numbers[: len(of_row)] > last_numbers[of_row]
        return above

    def stop_of(self, due: Due, first: int, most: int) -> int:
        """Return the position after the last due row from `first` on: at most `most` rows of one pass."""
        done, index = divmod(first, self.length)
        stop = min(first + most, (done + 1) * self.length, self.total)
        if due.position < stop:
            stop = max(math.floor(due.position), first)
        if due.event_time_ms < math.inf and stop > first:
            times = self._times[
                self.source.start + index : self.source.start + index + stop - first
            ]
            moment = due.event_time_ms - done * self.period_ms
            stop = first + int(np.searchsorted(times, moment, side="right"))
        return stop

    def partitions(self, first: int, stop: int) -> Ints:
        """Return the partitions of positions [first, stop) of one pass, int64."""
        index = first % self.length
        return self._partitions[index : index + stop - first]

    def pass_of(self, position: int) -> int:
        """Return the pass of a position, from 0."""
        return position // self.length

    def known_until(self, due: Due, first: int, stop: int) -> float:
        """Return up to which event time the world is known when positions [first, stop) are due.

        A pace by event time goes on where no transaction is, but not beyond the end of the pass.
        """
        latest = min((self.pass_of(first) + 1) * self.length, self.total) - 1
        if stop <= latest and self.event_time_ms(stop) <= due.event_time_ms:
            return float(self.event_time_ms(stop - 1)) if stop > first else -math.inf
        return min(float(self.event_time_ms(latest)), due.event_time_ms)

    def chunk(self, first: int, stop: int) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Yield (key, value, partition, number) of positions [first, stop) of one pass, in order."""
        done, index = divmod(first, self.length)
        start, number = self.source.start + index, self.number(first)
        part = self.source.table.slice(start, stop - first)
        transactions = records(_shifted(part, done, self.period_ms), 0, stop - first)
        keys = map(self._keys.__getitem__, self._key_of_row[index : index + stop - first].tolist())
        partitions = self._partitions[index : index + stop - first].tolist()
        numbers = range(number, number + stop - first)
        return zip(keys, map(encode, transactions), partitions, numbers, strict=True)

    def labels_due(self, after: LabelOrder, until_ms: float, position: int) -> list[DueLabel]:
        """Return the labels above `after` known by `until_ms`, in order, when `position` rows were sent.

        They are those of every pass begun, about rows of the cut; in the first pass also about rows
        before it, which became known in the time of the cut.
        """
        last_pass = (max(position, 1) - 1) // self.length
        first_pass = self._first_pass_after(after, last_pass)
        due: list[DueLabel] = []
        for done in range(first_pass, last_pass + 1):
            due.extend(self._labels_of_pass(done, after, until_ms))
        return sorted(due, key=lambda label: label.order)

    def label_order(self, number: int) -> LabelOrder:
        """Return the place of the label about the row with this number."""
        done, row = divmod(number, self.rows_of_table)
        at_ms = self.source.table["labelled_at_ms"][row].as_py()
        return LabelOrder(float(at_ms) + done * self.period_ms, number)

    def most_in(self, window_ms: float) -> int:
        """Return the largest number of rows in windows of event time so long, laid side by side."""
        times = self._times[self.source.start : self.source.stop]
        windows = ((times - times[0]) / max(window_ms, 1.0)).astype(np.int64)
        starts = np.flatnonzero(np.diff(windows, prepend=-1))
        return int(np.diff(starts, append=len(windows)).max())

    def _first_pass_after(self, after: LabelOrder, last_pass: int) -> int:
        """Return the first pass that may still have labels above `after`."""
        ahead_ms = after.labelled_at_ms - self._reports.last_ms
        if not math.isfinite(ahead_ms):
            return 0 if ahead_ms < 0 else last_pass
        return min(max(math.ceil(ahead_ms / self.period_ms), 0), last_pass)

    def _labels_of_pass(self, done: int, after: LabelOrder, until_ms: float) -> Iterator[DueLabel]:
        shift_ms = done * self.period_ms
        of_pass = self._reports.between(after.labelled_at_ms - shift_ms, until_ms - shift_ms)
        for row, record in of_pass:
            order = LabelOrder(
                float(record.labelled_at_ms + shift_ms), row + done * self.rows_of_table
            )
            if order > after and (done == 0 or row >= self.source.start):
                yield DueLabel(order, _shifted_label(record, done, shift_ms))

    def _total(self, loop: bool, limit: int | None) -> int:
        """Return the number of positions: one pass, or as many whole ones as end before the year 2100."""
        total = self.length
        if loop:
            last_ms = int(self._times[self.source.stop - 1])
            passes = (LATEST_MS - 1 - last_ms) // self.period_ms + 1
            total *= passes
            _check_ids(self.source, passes)
        return total if limit is None else min(total, limit)


class _Reports:
    """The labels about rows up to the end of the cut, in the order in which they become known."""

    def __init__(self, source: Source) -> None:
        known = labels(source.table, 0, source.stop)
        self._times = known.labelled_at_ms
        self._rows = known.rows.tolist()
        self._records = feedback(source.table, known)
        self.last_ms = float(self._times[-1]) if len(self._rows) else -math.inf

    def between(self, from_ms: float, to_ms: float) -> Iterator[tuple[int, Feedback]]:
        """Yield (row, record) of the labels known at `from_ms` to `to_ms`, both included."""
        first = int(np.searchsorted(self._times, from_ms, side="left"))
        stop = int(np.searchsorted(self._times, to_ms, side="right"))
        return zip(self._rows[first:stop], self._records[first:stop], strict=True)


def _keyed(source: Source, partitions: int) -> tuple[Ints, list[bytes], Ints]:
    """Return by row of the cut its partition, the distinct keys, and by row the index of its key."""
    customers = source.table["customer"].slice(source.start, source.stop - source.start)
    coded = customers.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    keys = [str(name).encode() for name in coded.dictionary.to_pylist()]
    of_key = np.array([partition_of(key, partitions) for key in keys], dtype=np.int64)
    indices = np.asarray(coded.indices).astype(np.int64)
    return of_key[indices], keys, indices


def _shifted(part: pa.Table, done: int, period_ms: int) -> pa.Table:
    if not done:
        return part
    moved = {
        "transaction_id": _with_suffix(part["transaction_id"], f"~{done}"),
        "event_time_ms": pc.add(part["event_time_ms"], done * period_ms),
    }
    for name, column in moved.items():
        part = part.set_column(part.column_names.index(name), name, column)
    return part


def _with_suffix(column: "pa.ChunkedArray[Any]", suffix: str) -> "pa.ChunkedArray[Any]":
    joined: pa.ChunkedArray[Any] = pc.binary_join_element_wise(column, suffix, "")  # type: ignore[call-overload]
    return joined


def _shifted_label(record: Feedback, done: int, shift_ms: int) -> Feedback:
    if not done:
        return record
    return msgspec.structs.replace(
        record,
        transaction_id=f"{record.transaction_id}~{done}",
        event_time_ms=record.event_time_ms + shift_ms,
        labelled_at_ms=record.labelled_at_ms + shift_ms,
    )


def _check_ids(source: Source, passes: int) -> None:
    lengths: Any = pc.utf8_length(source.table["transaction_id"])
    longest = int(pc.max(lengths).as_py()) + 1 + len(str(passes))
    if longest > MAX_ID_LENGTH:
        raise SettingsError(
            f"--loop makes transaction ids of {longest} characters; at most {MAX_ID_LENGTH} are allowed"
        )
