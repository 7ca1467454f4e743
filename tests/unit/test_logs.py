"""What a log line keeps of an error."""

import logging

import msgspec
import pytest

from fraudstream.clients.logs import JsonLines, without_trace
from fraudstream.core.errors import Fenced


def line_of(exc: Exception) -> dict[str, object]:
    info = (type(exc), exc, None)
    record = logging.LogRecord("scorer", logging.ERROR, "a.py", 1, "crashed: %r", (exc,), info)
    assert without_trace(record)
    decoded: dict[str, object] = msgspec.json.decode(JsonLines().format(record))
    return decoded


@pytest.mark.parametrize(
    ("exc", "traced"), [(Fenced("start it again"), False), (ValueError("odd"), True)]
)
def test_only_an_error_that_nobody_expected_has_a_stack_trace(exc: Exception, traced: bool) -> None:
    line = line_of(exc)
    assert str(exc) in str(line["message"])
    assert ("error" in line) == traced
