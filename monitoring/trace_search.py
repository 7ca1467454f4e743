"""Finds the records about a transaction in the topics, without decoding those of others.

1. `transactions` is searched for the bytes of the id; only records that hold them are decoded. A position,
   or an alert_id, which is one, is read at once instead.
2. What became of it stands near its own place: `monitoring/trace_outcome.py`.
3. `feedback` and `audit` are small and read whole.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeAlias

import msgspec
from confluent_kafka import Message

from fraudstream.clients.topic_log import Record, TopicReader, record_of
from fraudstream.core.partitioner import partition_of
from fraudstream.core.topics import topic_name
from monitoring.trace import Evidence
from monitoring.trace_outcome import Outcomes, holding

MOST_OCCURRENCES = 20
"""So many occurrences of one id are looked into; more are counted only."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Told the topic, records read so far, and how many there are."""

_POSITION = re.compile(r"(0|[1-9][0-9]{0,8})[:-](0|[1-9][0-9]{0,17})")
_PLAIN = re.compile(r"[A-Za-z0-9_.: -]+")


class _TransactionKey(msgspec.Struct):
    transaction_id: object = None


_transactions = msgspec.json.Decoder(_TransactionKey)


def needle_of(transaction_id: str) -> bytes:
    """Return bytes that stand in every JSON text with this id, however it escapes; empty if none do.

    JSON lets a writer escape any character; nobody escapes letters and digits, so the longest run of
    those is what is searched for.
    """
    return max(_PLAIN.findall(transaction_id), key=len, default="").encode()


def is_of(value: bytes, transaction_id: str) -> bool:
    """Tell whether a value of topic transactions is this one's.

    One that is no JSON is taken for it if it holds the id as a JSON string.
    """
    try:
        found = _transactions.decode(value).transaction_id
    except (ValueError, RecursionError):
        return msgspec.json.encode(transaction_id) in value
    return found == transaction_id or (isinstance(found, int) and str(found) == transaction_id)


def id_in(value: bytes | None) -> str | None:
    """Return the transaction_id in a value of topic transactions; None if none can be read."""
    try:
        found = _transactions.decode(value or b"").transaction_id
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def position_in(name: str) -> tuple[int, int] | None:
    """Return partition and offset if `name` is written like a position or an alert_id."""
    match = _POSITION.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


class Search:
    """Looks in the topics of one environment, through a reader of its scorers' group."""

    def __init__(self, reader: TopicReader, environment: str, progress: Progress) -> None:
        self._reader = reader
        self._environment = environment
        self._progress = progress
        self._topic = topic_name(environment, "transactions")
        self._bounds = reader.bounds(self._topic)
        self._outcomes = Outcomes(reader, environment)
        self.searched = 0
        """Records of topic transactions that were looked through for ids."""

    def find(
        self, names: Sequence[str], *, customer: str | None = None, ids_only: bool = False
    ) -> list[Evidence]:
        """Return what is known of each name, a transaction_id or a position; of one found nowhere no `found`.

        `customer`: ids are looked for in its partition alone. `ids_only`: no name is a position.

        Raises:
            DependencyUnreachable: no broker answers.
            Refused: a topic does not exist.
        """
        at = {} if ids_only else self._at_positions(names)
        ids = [name for name in names if name not in at]
        records, counts = self._with_ids(ids, self.partitions(customer))
        found = {name: [record] for name, record in at.items()} | records
        wanted = {name: id_in(at[name].value) if name in at else name for name in names}
        feedback = self._about(list(wanted.values()))
        audit = [record_of(m) for m in self._all("audit")] if any(found.values()) else []
        return [
            Evidence(
                asked=name,
                by_position=name in at,
                transaction_id=wanted[name],
                found=[self._outcomes.of(record) for record in found[name]],
                more=counts.get(name, 0) - len(found[name]) if name not in at else 0,
                feedback=feedback,
                audit=audit,
            )
            for name in names
        ]

    def partitions(self, customer: str | None) -> list[int]:
        """Return the partitions in which transactions of `customer` stand; all without one."""
        if customer is None:
            return sorted(self._bounds)
        return [partition_of(customer.encode(), len(self._bounds))]

    def _at_positions(self, names: Sequence[str]) -> dict[str, Record]:
        places = {name: place for name in names if (place := position_in(name)) is not None}
        read = {name: self._reader.record_at(self._topic, *place) for name, place in places.items()}
        return {name: record for name, record in read.items() if record is not None}

    def _with_ids(
        self, ids: Sequence[str], partitions: Sequence[int]
    ) -> tuple[dict[str, list[Record]], dict[str, int]]:
        """Return the first records with each id, and how many there are."""
        records: dict[str, list[Record]] = {name: [] for name in ids}
        counts = dict.fromkeys(ids, 0)
        if not ids:
            return records, counts
        needles = [needle_of(name) for name in ids]
        ranges = {partition: self._bounds[partition] for partition in partitions}
        total = sum(end - begin for begin, end in ranges.values())
        for batch in self._reader.batches(self._topic, ranges):
            self.searched += len(batch)
            self._progress("transactions", self.searched, total)
            for message, value in holding(batch, needles):
                for name in filter(lambda name: is_of(value, name), ids):
                    counts[name] += 1
                    if counts[name] <= MOST_OCCURRENCES:
                        records[name].append(record_of(message))
        return records, counts

    def _about(self, ids: Sequence[str | None]) -> list[Record]:
        """Return the answers about any of the ids."""
        needles = [needle_of(each) for each in ids if each is not None]
        if not needles:
            return []
        batches = self._batches("feedback")
        return [record_of(m) for batch in batches for m, _ in holding(batch, needles)]

    def _all(self, name: str) -> Iterator[Message]:
        return chain.from_iterable(self._batches(name))

    def _batches(self, name: str) -> Iterator[list[Message]]:
        topic = topic_name(self._environment, name)
        return self._reader.batches(topic, self._reader.bounds(topic))
