"""Structured logs on standard error: one JSON object a line, or a short line for people at a terminal."""

import logging
import sys
from datetime import UTC, datetime

import msgspec

from fraudstream.core.errors import FraudstreamError

CHATTY = ("faust", "mode", "aiokafka", "kafka", "urllib3")
"""Libraries whose own logs matter only from warnings on."""


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
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
