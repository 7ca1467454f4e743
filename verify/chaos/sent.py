"""The transactions as they lie in the log, and what of each its score must say again."""

from array import array

from fraudstream.core.errors import FraudstreamError
from fraudstream.core.transaction import Transaction, decode_transaction
from verify.tally import Record

Head = tuple[bytes | None, int]
"""Key and timestamp, Unix ms, of a record."""


def digest(head: Head, body: tuple[str, int, str, str, int, str]) -> int:
    """Return eight bytes (Python's own hash) of what a score repeats of its transaction.

    `body`: id, event time, customer, terminal, amount, currency.
    """
    return hash((head, body))


class Transactions:
    """All of them by partition; the offset is the place, since the topic has no gaps."""

    def __init__(self) -> None:
        self._values: dict[int, list[bytes]] = {}
        self._keys: dict[int, list[bytes | None]] = {}
        self._times_ms: dict[int, array[int]] = {}

    def add(self, record: Record) -> None:
        """Keep one.

        Raises:
            FraudstreamError: one before it is not there.
        """
        known = self._values.setdefault(record.partition, [])
        if record.offset != len(known):
            raise FraudstreamError(
                f"transactions {record.partition} has no offset {len(known)}: the oracle cannot tell"
            )
        known.append(record.value or b"")
        self._keys.setdefault(record.partition, []).append(record.key)
        self._times_ms.setdefault(record.partition, array("q")).append(record.timestamp)

    def find(self, partition: int, offset: int) -> tuple[Transaction, int] | None:
        """Return the transaction at a place and its `digest`; None if there is none."""
        if not 0 <= offset < len(self._values.get(partition, ())):
            return None
        found = decode_transaction(self._values[partition][offset])
        head = self._keys[partition][offset], self._times_ms[partition][offset]
        body = (
            found.transaction_id,
            found.event_time_ms,
            found.entities.customer,
            found.entities.terminal,
            found.amount_minor,
            found.currency,
        )
        return found, digest(head, body)
