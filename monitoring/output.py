"""What commands that show records have in common: times, amounts, and a reader who leaves early."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


def moment(event_time_ms: int, *, timespec: str = "seconds") -> str:
    """Return UTC milliseconds for people; a number that is no time stays a number."""
    try:
        time = datetime.fromtimestamp(event_time_ms / 1000, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return str(event_time_ms)
    return time.isoformat(sep=" ", timespec=timespec)


def money(amount_minor: int, currency: str) -> str:
    """Return an amount in minor units for people."""
    return f"{amount_minor / 100:,.2f} {currency}"


@contextmanager
def until_reader_leaves() -> Iterator[None]:
    """End the block without an error once nobody reads standard output any more, as with `| head -1`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has all it wanted; the last flush must find an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
