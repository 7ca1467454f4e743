"""Record headers whose name is not UTF-8: kafka-python calls the whole record corrupt and goes no further.

Such a record is a transaction like any other, so the ledger must read it. In its header names each byte
beyond ASCII is read as a question mark; key, value and header values stay as they are.
"""

from functools import partial
from typing import Any

from kafka.record import default_records, memory_records
from kafka.record.util import decode_varint


class TolerantBatch(default_records.DefaultRecordBatch):  # type: ignore[misc]
    """A batch of records that is read whatever its header names are."""

    def _read_msg(self) -> Any:  # noqa: ANN401 - a record of kafka-python, which has no types
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            # The checksum of the batch has been compared before the first record is read.
            # The buffer is the batch's own copy.
            mend(self._buffer, self._pos)
            return super()._read_msg()


def mend(buffer: bytearray, start: int) -> None:
    """Make the header names ASCII in the record that begins at `start`."""
    number = partial(decode_varint, buffer)
    at = start
    for _ in ("length", "attributes", "timestamp", "offset"):
        _, at = number(at)
    for _ in ("key", "value"):
        length, at = number(at)
        at += max(length, 0)
    count, at = number(at)
    for _ in range(count):
        length, at = number(at)
        name = buffer[at : at + length]
        buffer[at : at + length] = bytes(byte if byte < 128 else ord("?") for byte in name)
        length, at = number(at + length)
        at += max(length, 0)


def read_odd_headers() -> None:
    """Let kafka-python read such records from now on, in this process."""
    vars(memory_records)["DefaultRecordBatch"] = TolerantBatch
