"""What a log line keeps of an error."""

import logging

import msgspec
import pytest

from fraudstream.clients.logs import SELDOM_S, JsonLines, Seldom, without_trace
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


def test_what_a_kafka_client_says_again_and_again_is_told_once_in_a_while_with_the_number() -> None:
    seldom = Seldom()

    def told(at_s: float, number: int, logger: str = "aiokafka.conn") -> str | None:
        text = "Connect to 127.0.0.1:%d failed"
        record = logging.LogRecord(logger, logging.ERROR, "a.py", 1, text, (number,), None)
        record.created = at_s
        return record.getMessage() if seldom.filter(record) else None

    assert told(0.0, 9092) == "Connect to 127.0.0.1:9092 failed"
    assert [told(i / 10, 9092 + i) for i in range(1, 90)] == [None] * 89
    assert told(SELDOM_S, 9092) == "Connect to 127.0.0.1:9092 failed (89 more like this since)"
    assert told(0.0, 9092, "aiokafka.other") is not None, "of another part of it"
    assert [told(0.0, 1, "scorer.output") for _ in range(3)] == [
        "Connect to 127.0.0.1:1 failed"
    ] * 3
