"""Structured logs on standard error: one JSON object a line, or a short line for people at a terminal."""

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

from fraudstream.core.errors import FraudstreamError

CHATTY = ("faust", "mode", "aiokafka", "kafka", "urllib3")
"""Libraries whose own logs matter only from warnings on."""

REPEATING = ("aiokafka", "fraudstream.clients.kafka")
"""Kafka clients, the second librdkafka: each says ten times a second that a broker is away."""
SELDOM_S = 10.0
MOST_KINDS = 1_000


class Seldom(logging.Filter):
    """Lets records of REPEATING that differ in numbers only through once in SELDOM_S, with their number."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        """When one of a kind was let through last, and how many were not since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to let it through."""
        if not record.name.startswith(REPEATING):
            return True
        message = record.getMessage()
        kind = (record.name, re.sub(r"\d+", "#", message))
        told_s, left_out = self._seen.get(kind, (float("-inf"), 0))
        if record.created - told_s < SELDOM_S:
            self._seen[kind] = (told_s, left_out + 1)
            return False
        if len(self._seen) > MOST_KINDS:
            self._seen.clear()
        self._seen[kind] = (record.created, 0)
        if left_out:
            record.msg, record.args = f"{message} ({left_out} more like this since)", ()
        return True


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: at (UTC, ISO 8601), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def without_trace(record: logging.LogRecord) -> bool:
    """Take the stack trace of a known error off a record: its sentence says what to do. Keeps all records."""
    if record.exc_info and isinstance(record.exc_info[1], FraudstreamError):
        record.exc_info, record.exc_text = None, None
    return True


def configure(level: int) -> None:
    """Send all logs from `level` on to standard error, in place of any handlers set before."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    else:
        handler.setFormatter(JsonLines())
    handler.addFilter(without_trace)
    handler.addFilter(Seldom())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
