"""From messages to a batch: parts by partition, dead letters with a reason, nothing twice."""

from typing import cast

import confluent_kafka
import msgspec

from fraudstream.core.transaction import Entities, Transaction, decode_transaction, encode
from scorer.batch import Message, decode

SENT_AT_MS = 1_532_476_900_000


def record(partition: int, offset: int, value: bytes | None, **headers: bytes) -> Message:
    message = confluent_kafka.Message(
        topic="transactions",
        partition=partition,
        offset=offset,
        key=b"c",
        value=value,
        headers=list(headers.items()),
        timestamp=(1, SENT_AT_MS),
    )
    return cast("Message", message)


def good(name: str) -> bytes:
    return encode(
        Transaction(
            v=1,
            transaction_id=name,
            event_time_ms=1_532_476_800_000,
            kind="purchase",
            amount_minor=1,
            currency="EUR",
            entities=Entities("c", "m"),
        )
    )


def test_messages_are_grouped_by_partition_in_order() -> None:
    messages = [record(0, 5, good("a")), record(1, 9, good("b")), record(0, 6, good("c"))]
    batch = decode(messages, {0: 5, 1: 9}, polled_at_ms=0)
    assert [(p.partition, p.previous_offset, p.last_offset) for p in batch.parts] == [
        (0, 4, 6),
        (1, 8, 9),
    ]
    assert [t.transaction_id for t in batch.parts[0].transactions] == ["a", "c"]
    assert batch.size == 3


def test_a_dead_letter_still_counts_in_the_position_of_its_partition() -> None:
    batch = decode([record(0, 0, good("a")), record(0, 1, b"{")], {0: 0}, polled_at_ms=0)
    assert batch.parts[0].last_offset == 1
    assert [(letter.kind, letter.not_applied) for letter in batch.dead] == [
        ("malformed_json", "all")
    ]
    assert (batch.size, batch.scorable) == (2, 1)


def test_messages_of_partitions_given_away_or_handled_already_are_left_out() -> None:
    messages = [record(0, 4, good("old")), record(7, 0, good("lost")), record(0, 5, good("new"))]
    batch = decode(messages, {0: 5}, polled_at_ms=0)
    assert [t.transaction_id for t in batch.parts[0].transactions] == ["new"]
    assert batch.size == 1


def test_the_latest_feedback_that_any_record_needs_is_asked_for() -> None:
    messages = [
        record(0, 0, good("a"), after_feedback=b"3"),
        record(0, 1, good("b"), after_feedback=b"7"),
        record(0, 2, good("c")),
    ]
    assert decode(messages, {0: 0}, polled_at_ms=0).after_feedback == 7


def test_a_feedback_header_that_is_no_offset_is_a_dead_letter() -> None:
    batch = decode([record(0, 0, good("a"), after_feedback=b"-x")], {0: 0}, polled_at_ms=0)
    assert batch.dead[0].kind == "invalid_field"
    assert "after_feedback" in batch.dead[0].reason


def test_an_event_time_far_after_its_sending_is_a_dead_letter() -> None:
    ahead = msgspec.structs.replace(decode_transaction(good("a")), event_time_ms=4_070_908_800_000)
    batch = decode([record(0, 0, encode(ahead))], {0: 0}, polled_at_ms=0, max_ahead_days=366)
    assert batch.dead[0].kind == "invalid_field"
    assert "event_time_ms" in batch.dead[0].reason


def test_a_feedback_header_of_too_many_digits_is_a_dead_letter() -> None:
    batch = decode([record(0, 0, good("a"), after_feedback=b"1" * 5_000)], {0: 0}, polled_at_ms=0)
    assert batch.dead[0].kind == "invalid_field"
