"""What the processes of a benchmark take of memory, and topics that do not fill the disk."""

import msgspec
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from redis import Redis

from fraudstream.clients.kafka import common
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.bench.processes import working_on

MB = 1024 * 1024
KEPT_BYTES = 128 * MB
"""Of a partition, at least, and segments a quarter of that: half a minute at 40,000 a second."""


class Memory(msgspec.Struct, frozen=True):
    """Megabytes: resident of worker and broker, and what Redis says it uses."""

    worker_mb: float
    redis_mb: float
    kafka_mb: float

    @property
    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"worker {self.worker_mb:.0f} MB, Redis {self.redis_mb:.0f}, Kafka {self.kafka_mb:.0f}"
        )


def memory(settings: Settings, client: Redis) -> Memory:
    """Look at the worker and the servers of a benchmark."""
    info = client.info("memory")
    return Memory(
        _resident_mb(settings, " scorer"),
        round(int(info["used_memory"]) / MB, 1),
        _resident_mb(settings, "kafka.Kafka"),
    )


def _resident_mb(settings: Settings, part: str) -> float:
    found = [each.info["memory_info"].rss for each in working_on(settings, part)]
    return round(float(sum(found)) / MB, 1)


def forget_old_records(settings: Settings) -> None:
    """Let the topics of a long run keep their newest part only.

    Raises:
        KafkaException: the broker refuses.
    """
    admin = AdminClient(common(settings))
    limits = {"retention.bytes": KEPT_BYTES, "segment.bytes": KEPT_BYTES // 4}
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in limits.items()
    ]
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic_name(settings.environment, name),
            incremental_configs=entries,
        )
        for name in ("transactions", "scores", "alerts")
    ]
    for done in admin.incremental_alter_configs(resources).values():
        done.result()
