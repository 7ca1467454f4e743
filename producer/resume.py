"""Where a replay that was killed goes on: what the topics say was sent, by partition."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fraudstream.clients.kafka_log import LastRecord, last_records
from fraudstream.core.settings import Settings

RESTARTED = "restarted_ms"
"""Header: wall clock of the deliberate restart a record belongs to; absent before the first."""


class Sent(Struct, frozen=True):
    """What of a source is in the topics already.

    `last_numbers` int64 [P]: number of the last row by partition, -1 none. `label_number`, `label_offset`:
    the last label, -1 none. `restarted_ms`: the deliberate restart all this belongs to, 0 none.
    """

    last_numbers: NDArray[np.int64]
    label_number: int = -1
    label_offset: int = -1
    restarted_ms: int = 0


def nothing_sent(partitions: int, restarted_ms: int = 0) -> Sent:
    """Return that nothing was sent, for the first row of a source, or of its deliberate restart."""
    return Sent(np.full(partitions, -1, dtype=np.int64), restarted_ms=restarted_ms)


def read_sent(
    settings: Settings, topics: tuple[str, str], partitions: int, source: str, search_back: int
) -> Sent:
    """Return what is in `topics` (transactions, feedback) of `source`.

    Raises:
        Refused: the source was not found within `search_back` records, or another replay of it runs.
        DependencyUnreachable: the broker does not answer.
    """
    transactions, feedback = topics
    rows = last_records(settings, transactions, partitions, source=source, search_back=search_back)
    labels = last_records(settings, feedback, 1, source=source, search_back=search_back)
    return sent_of(rows, labels, partitions)


def sent_of(
    rows: Mapping[int, LastRecord], labels: Mapping[int, LastRecord], partitions: int
) -> Sent:
    """Return what the last records mean: those from before the newest restart count as none."""
    records = [*rows.values(), *labels.values()]
    restarted_ms = max((_restarted(record) for record in records), default=0)
    sent = nothing_sent(partitions, restarted_ms)
    for partition, record in rows.items():
        if _restarted(record) == restarted_ms:
            sent.last_numbers[partition] = int(record.headers["row"])
    label = labels.get(0)
    if label is None or _restarted(label) != restarted_ms:
        return sent
    return Sent(sent.last_numbers, int(label.headers["row"]), label.offset, restarted_ms)


def _restarted(record: LastRecord) -> int:
    return int(record.headers.get(RESTARTED, "0"))
