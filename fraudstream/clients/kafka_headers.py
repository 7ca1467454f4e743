"""Reading the headers of a confluent-kafka message without dying of one whose name is not UTF-8.

For such a header confluent-kafka 2.16 returns a list with a hole in it and leaves a Python error behind.
Who calls `headers()` directly meets the hole once Python has specialised that call, which is after a few
records: the process ends with SIGSEGV. Through `methodcaller` Python looks for the error each time.
"""

from operator import methodcaller
from typing import Any

from fraudstream.core.errors import BadRecord

Headers = list[tuple[str, bytes | None]]

_headers = methodcaller("headers")


def headers_of(message: Any) -> Headers:  # noqa: ANN401 - confluent-kafka's class, or a test's
    """Return name and value of each header, in order; call it once for a message that it refuses.

    Raises:
        BadRecord: a header's name is not UTF-8; none of the headers can be read then.
    """
    try:
        found: Headers | None = _headers(message)
    except SystemError as exc:
        if not isinstance(exc.__cause__, UnicodeDecodeError):
            raise
        name = exc.__cause__.object.decode("utf-8", "backslashreplace")
        raise BadRecord(
            "unreadable_header",
            f"the name of a header is not UTF-8: {name[:40]}; its headers cannot be read",
        ) from exc
    return found or []
