"""How large a record a topic takes, as the broker has it, and the room that a record takes there."""

from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ConfigResource,
    ResourceType,
)

from fraudstream.clients.kafka import connected, missing_topic, unreachable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES, topic_name

BATCH_BYTES = 100
"""What a batch takes for itself with one record in it, at most; a header takes 10 more than its text."""


def topic_limits(settings: Settings, names: Iterable[str], *, timeout_s: float) -> dict[str, int]:
    """Return what each topic takes, by base name: bytes of a batch that holds one record.

    Never more than the product's own clients send.

    Raises:
        DependencyUnreachable: no broker answers within `timeout_s`.
        Refused: a topic does not exist.
    """
    base = {topic_name(settings.environment, each): each for each in names}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in base]
    admin = connected(settings, timeout_s)  # a new one: a client may lose its broker for good
    limits = {}
    try:
        for each, answer in admin.describe_configs(resources, request_timeout=timeout_s).items():
            limit = int(answer.result()["max.message.bytes"].value)
            limits[base[each.name]] = min(limit, MAX_DEAD_LETTER_BYTES)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise missing_topic(each.name) from exc
        raise unreachable(settings, exc) from exc
    return limits


def room_of(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, str | bytes | None]]
) -> int:
    """Return the bytes that a batch with this record alone takes at the broker, at most."""
    room = BATCH_BYTES + len(key or b"") + len(value or b"")
    if headers:  # scores and alerts have none
        room += sum(len(name.encode()) + len(text or "") + 10 for name, text in headers)
    return room
