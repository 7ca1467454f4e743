"""What the ledger keeps of each record: where it stands and eight bytes of what it says, in flat arrays.

The eight bytes are Python's own hash, keyed anew in each process, so nobody can prepare a collision. What
a record holds is hashed by its SHA-256, since the dead letter of one that was cut has nothing else.
"""

import hashlib
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from fraudstream.core.dead_letters import own_headers

NOWHERE = -1
"""Partition and offset of a result that does not say where its transaction stands."""
SCORE, DEAD_LETTER = 0, 1

Ints = NDArray[np.int64]


class Record(Protocol):
    """The part of a kafka-python record that is read here, and by the oracle of chaos runs."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Arrived(msgspec.Struct, frozen=True):
    """The transactions of one partition, int64 [N] each: rising offsets, digests of id and of bytes."""

    offsets: Ints
    names: Ints
    contents: Ints


class Arrivals:
    """All transactions; 24 bytes each."""

    def __init__(self) -> None:
        self._columns: dict[int, tuple[array[int], array[int], array[int]]] = {}

    def add(self, partition: int, offset: int, *, name: int, content: int) -> None:
        """Keep one transaction; within a partition offsets rise."""
        columns = self._columns.get(partition)
        if columns is None:
            columns = self._columns[partition] = (array("q"), array("q"), array("q"))
        columns[0].append(offset)
        columns[1].append(name)
        columns[2].append(content)

    def add_record(self, record: Record) -> None:
        """Keep one record of `transactions`; one without a readable id matches no score."""
        name, content = digests_of_arrival(record)
        self.add(record.partition, record.offset, name=name, content=content)

    def __len__(self) -> int:
        return sum(len(columns[0]) for columns in self._columns.values())

    def partitions(self) -> list[int]:
        """Return the partitions that hold transactions, rising."""
        return sorted(self._columns)

    def of(self, partition: int) -> Arrived:
        """Return the transactions of one partition."""
        return Arrived(*(np.frombuffer(column, np.int64) for column in self._columns[partition]))


class Results:
    """All scores and dead letters in the order of their reading: own place, transaction's place, digest."""

    def __init__(self) -> None:
        self._kinds = array("b")
        self._own = array("q"), array("q")
        self._source = array("q"), array("q")
        self._digests = array("q")
        self._claimed: dict[int, int] = {}

    def add(
        self,
        kind: int,
        own: tuple[int, int],
        source: tuple[int, int],
        digest: int,
        claimed: int | None = None,
    ) -> None:
        """Keep one result; `own` and `source` are (partition, offset), `claimed` is what a letter claims."""
        if claimed is not None:
            self._claimed[len(self._kinds)] = claimed
        self._kinds.append(kind)
        self._own[0].append(own[0])
        self._own[1].append(own[1])
        self._source[0].append(source[0])
        self._source[1].append(source[1])
        self._digests.append(digest)

    def add_score(self, record: Record) -> None:
        """Keep one record of `scores`; an unreadable one stands for no transaction."""
        self.add(SCORE, (record.partition, record.offset), *origin_of_score(record))

    def add_dead_letter(self, record: Record) -> None:
        """Keep one record of `dead-letters`; one without the headers of its source stands for none."""
        self.add(DEAD_LETTER, (record.partition, record.offset), *origin_of_dead_letter(record))

    def __len__(self) -> int:
        return len(self._kinds)

    def kinds(self) -> NDArray[np.int8]:
        """Return int8 [N]: `SCORE` or `DEAD_LETTER`."""
        return np.frombuffer(self._kinds, np.int8)

    def sources(self) -> tuple[Ints, Ints]:
        """Return partitions and offsets of the transactions, int64 [N] each."""
        return np.frombuffer(self._source[0], np.int64), np.frombuffer(self._source[1], np.int64)

    def digests(self) -> Ints:
        """Return int64 [N]: of the transaction's id for a score, of its bytes for a dead letter."""
        return np.frombuffer(self._digests, np.int64)

    def claimed(self) -> Ints:
        """Return int64 [N]: as `digests`, but of the whole where a dead letter says that it was cut."""
        if not self._claimed:
            return self.digests()
        claimed = self.digests().copy()
        claimed[list(self._claimed)] = list(self._claimed.values())
        return claimed

    def before(self, begins: Mapping[int, int]) -> NDArray[np.bool_]:
        """Return bool [N]: of a position before the first offset of its partition of `transactions`."""
        partitions, offsets = self.sources()
        found = np.zeros(len(self), dtype=bool)
        for partition, begin in begins.items():
            found |= (partitions == partition) & (offsets >= 0) & (offsets < begin)
        return found

    def certain_from(self, partition: int, begins: Mapping[int, int]) -> int:
        """Return the offset of `transactions` from which on no score of a partition can have expired.

        `begins`: the first offset by partition of `scores`. Scores stand there in the order of their
        transactions: what has expired was below the first that is left.
        """
        shortened = [own for own, begin in begins.items() if begin > 0]
        if not shortened:
            return 0
        partitions, offsets = self.sources()
        mine = (partitions == partition) & (self.kinds() == SCORE)
        if not mine.any():
            return sys.maxsize
        owns, offsets = np.frombuffer(self._own[0], np.int64)[mine], offsets[mine]
        return max((int(offsets[owns == own].min()) for own in shortened if own in owns), default=0)

    def own_place(self, index: int) -> tuple[str, int, int]:
        """Return topic (base name), partition and offset of a result itself."""
        topic = "scores" if self._kinds[index] == SCORE else "dead-letters"
        return topic, self._own[0][index], self._own[1][index]


class _ScoreKey(msgspec.Struct):
    transaction_id: str
    source_partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    source_offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _TransactionKey(msgspec.Struct):
    transaction_id: str


_scores = msgspec.json.Decoder(_ScoreKey)
_transactions = msgspec.json.Decoder(_TransactionKey)


def digests_of_arrival(record: Record) -> tuple[int, int]:
    """Return the digests of a transaction's id and of its bytes; without a readable id no score's."""
    return (_name(record.value) if record.value else NOWHERE), _content(record.value)


def origin_of_score(record: Record) -> tuple[tuple[int, int], int]:
    """Return where the transaction of a score stands, (partition, offset), and the digest of its id."""
    try:
        score = _scores.decode(record.value or b"")
    except (ValueError, RecursionError):
        return (NOWHERE, NOWHERE), 0
    return (score.source_partition, score.source_offset), hash(score.transaction_id)


def origin_of_dead_letter(record: Record) -> tuple[tuple[int, int], int, int | None]:
    """Return where the transaction of a dead letter stands, the digest of its bytes and the one it claims.

    It claims one, that of the whole, if it was cut. Where the transaction's own first headers have such
    names they look like a claim, so a letter is right by either.
    """
    headers = own_headers(record.headers)
    source = _number(headers.get("source_partition")), _number(headers.get("source_offset"))
    if headers.get("source_topic") != b"transactions":
        source = NOWHERE, NOWHERE
    sha256 = headers.get("original_sha256")
    return source, _content(record.value), None if sha256 is None else hash(sha256)


def _name(value: bytes) -> int:
    try:
        return hash(_transactions.decode(value).transaction_id)
    except (ValueError, RecursionError):
        return NOWHERE


def _content(value: bytes | None) -> int:
    return NOWHERE if value is None else hash(hashlib.sha256(value).hexdigest().encode())


def _number(text: bytes | None) -> int:
    return int(text) if text and re.fullmatch(rb"[0-9]{1,18}", text) else NOWHERE
