"""The topics as data: name, partitions, key and broker settings (docs/topics.md)."""

import msgspec

MAX_TRANSACTION_BYTES = 16 * 1024 * 1024
"""Size limit on `transactions`: far above a valid record, so an oversized one becomes a dead letter."""
MAX_DEAD_LETTER_BYTES = MAX_TRANSACTION_BYTES + 64 * 1024

_FOREVER = {"retention.ms": "-1", "retention.bytes": "-1"}


class Topic(msgspec.Struct, frozen=True):
    """One topic: its base name, number of partitions and the topic settings that matter."""

    name: str
    partitions: int
    config: dict[str, str]


def topic_name(environment: str, name: str) -> str:
    """Return the full name of a topic: every environment has topics of its own."""
    return f"{environment}.{name}"


def topics(partitions: int = 8) -> tuple[Topic, ...]:
    """Return all topics; `partitions` is the number for those that scale with the stream."""
    return (
        Topic(
            "transactions", partitions, _FOREVER | {"max.message.bytes": str(MAX_TRANSACTION_BYTES)}
        ),
        Topic("scores", partitions, {"retention.ms": "-1"}),
        Topic("alerts", partitions, {"retention.ms": "-1"}),
        Topic("feedback", 1, dict(_FOREVER)),
        Topic(
            "dead-letters",
            partitions,
            {"retention.ms": "-1", "max.message.bytes": str(MAX_DEAD_LETTER_BYTES)},
        ),
        Topic("audit", 1, {"retention.ms": "-1"}),
        Topic("monitoring", 1, {"retention.ms": "-1"}),
    )
