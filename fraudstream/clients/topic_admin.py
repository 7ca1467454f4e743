"""Topics of an environment at the broker: create what is missing, say what differs, describe."""

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import KafkaError

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError, KafkaUnreachable
from fraudstream.core.topics import Topic, topic_name
from fraudstream.core.topics import topics as wanted_topics

logger = logging.getLogger(__name__)

OK = 0
ALREADY_EXISTS = 36
POLL_S = 0.1
ALWAYS = {"cleanup.policy": "delete"}
"""Settings that every topic has, though they are the broker's default: a compacted one loses records."""


class Difference(msgspec.Struct, frozen=True):
    """A setting of an existing topic that is not what the product asks for.

    `matters`: records would be lost, refused or out of order.
    """

    topic: str
    setting: str
    found: str
    wanted: str
    matters: bool


class TopicReport(msgspec.Struct, frozen=True):
    """What `create_topics` made, and how the topics that were there before differ; full names."""

    created: tuple[str, ...]
    differences: tuple[Difference, ...]


class TopicDescription(msgspec.Struct, frozen=True):
    """One topic as it is at the broker; 0 partitions: it does not exist."""

    name: str
    partitions: int
    config: dict[str, str]


def create_topics(
    bootstrap: str, environment: str, partitions: int, *, timeout_ms: int
) -> TopicReport:
    """Create the topics of `environment` that are missing; change nothing that exists.

    Raises:
        DependencyUnreachable: no broker answers within `timeout_ms`.
        FraudstreamError: the broker refuses to create a topic; names topic and reason.
    """
    wanted = {topic_name(environment, topic.name): topic for topic in wanted_topics(partitions)}
    with admin(bootstrap, timeout_ms=timeout_ms) as client:
        existing = _describe(client, wanted)
        missing = [name for name, found in existing.items() if found.partitions == 0]
        created = _create(client, {name: wanted[name] for name in missing}) if missing else ()
        logger.info("topics of %s: %d created", environment, len(created))
        differences = tuple(
            difference
            for name, found in _describe(client, wanted).items()
            for difference in compare(found, wanted[name])
        )
    return TopicReport(created, differences)


def describe_topics(
    bootstrap: str, environment: str, *, timeout_ms: int
) -> tuple[TopicDescription, ...]:
    """Return all topics of `environment` in the order of `fraudstream.core.topics`, missing ones included.

    Raises:
        DependencyUnreachable: no broker answers within `timeout_ms`.
    """
    wanted = {topic_name(environment, topic.name): topic for topic in wanted_topics()}
    with admin(bootstrap, timeout_ms=timeout_ms) as client:
        return tuple(_describe(client, wanted).values())


def compare(found: TopicDescription, wanted: Topic) -> list[Difference]:
    """Return how an existing topic differs from what is wanted."""
    pairs = [("partitions", str(found.partitions), str(wanted.partitions))]
    pairs += [
        (setting, found.config.get(setting, ""), value)
        for setting, value in (ALWAYS | wanted.config).items()
    ]
    return [
        Difference(found.name, setting, have, want, _matters(setting, have, want))
        for setting, have, want in pairs
        if have != want
    ]


def _matters(setting: str, found: str, wanted: str) -> bool:
    """More partitions, longer retention or larger records do no harm; a second partition breaks an order."""
    if setting == "partitions" and wanted == "1":
        return True
    try:
        have, want = int(found), int(wanted)
    except ValueError:
        return True
    endless = want == -1 and setting.startswith("retention")
    return endless or (have < want and have != -1)


@contextmanager
def admin(bootstrap: str, *, timeout_ms: int) -> Iterator[KafkaAdminClient]:
    """Yield an admin client and close it.

    Raises:
        DependencyUnreachable: no broker answers within `timeout_ms`, or it stops answering.
    """
    _require_listener(bootstrap, timeout_ms)
    client = None
    try:
        client = KafkaAdminClient(
            bootstrap_servers=bootstrap.split(","),
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
        )
        yield client
    except KafkaError as exc:
        raise _unreachable(bootstrap, str(exc)) from exc
    finally:
        if client is not None:
            client.close()


def _require_listener(bootstrap: str, timeout_ms: int) -> None:
    """Look for an open port first: kafka-python leaves sockets behind when it finds none."""
    deadline = monotonic_s() + timeout_ms / 1000
    while True:
        for address in bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout_ms / 1000).close()
            except (OSError, ValueError) as exc:
                reason = str(exc)
            else:
                return
        if monotonic_s() > deadline:
            raise _unreachable(bootstrap, reason)
        threading.Event().wait(POLL_S)


def _unreachable(bootstrap: str, reason: str) -> KafkaUnreachable:
    return KafkaUnreachable(
        f"Kafka at {bootstrap} does not answer ({reason}): start the embedded stack with "
        "`fraudstream stack up`, or check FRAUDSTREAM_KAFKA_BOOTSTRAP"
    )


def _describe(client: KafkaAdminClient, wanted: Mapping[str, Topic]) -> dict[str, TopicDescription]:
    found = {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics([*wanted])}
    settings = {name: dict.fromkeys(ALWAYS | topic.config) for name, topic in wanted.items()}
    resources = [
        ConfigResource("TOPIC", name, settings[name]) for name in wanted if found.get(name)
    ]
    configs: dict[str, dict[str, Any]] = {}
    if resources:
        configs = client.describe_configs(resources, config_filter="all")["topic"]
    return {
        name: TopicDescription(
            name,
            found.get(name, 0),
            {setting: str(entry["value"]) for setting, entry in configs.get(name, {}).items()},
        )
        for name in wanted
    }


def _create(client: KafkaAdminClient, missing: Mapping[str, Topic]) -> tuple[str, ...]:
    """Create topics with the broker's default replication; one that another created meanwhile is there."""
    answer = client.create_topics(
        {
            name: {"num_partitions": topic.partitions, "configs": topic.config}
            for name, topic in missing.items()
        },
        raise_errors=False,
        wait_for_metadata=True,
    )
    for topic in answer["topics"]:
        if topic["error_code"] not in {OK, ALREADY_EXISTS}:
            raise FraudstreamError(
                f"the broker refuses topic {topic['name']}: {topic['error_message']}"
            )
    return tuple(topic["name"] for topic in answer["topics"] if topic["error_code"] == OK)
