"""Topics at a real broker: created once, compared afterwards, never changed."""

import json
import os
import subprocess
import sys

import pytest
from kafka import KafkaAdminClient

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import Difference, compare, create_topics, describe_topics
from fraudstream.clients.topic_admin import TopicDescription as Found
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES, Topic
from fraudstream.core.topics import topics as all_topics


def fraudstream(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the settings of the test."""
    given = {
        "FRAUDSTREAM_ENVIRONMENT": settings.environment,
        "FRAUDSTREAM_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "FRAUDSTREAM_PARTITIONS": str(settings.partitions),
    }
    return subprocess.run(
        [sys.executable, "-m", "fraudstream.cli", *arguments],
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_second_creation_changes_nothing(settings: Settings) -> None:
    arguments = (settings.kafka_bootstrap, settings.environment, settings.partitions)
    first = create_topics(*arguments, timeout_ms=5_000)
    second = create_topics(*arguments, timeout_ms=5_000)
    assert len(first.created) == len(all_topics())
    assert first.differences == ()
    assert (second.created, second.differences) == ((), ())
    described = describe_topics(settings.kafka_bootstrap, settings.environment, timeout_ms=5_000)
    found = {topic.name: topic for topic in described}
    dead_letters = found[f"{settings.environment}.dead-letters"]
    assert dead_letters.partitions == settings.partitions
    assert dead_letters.config["max.message.bytes"] == str(MAX_DEAD_LETTER_BYTES)


def test_create_says_what_differs_and_exits_1_if_it_matters(settings: Settings) -> None:
    name = f"{settings.environment}.feedback"
    client = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    client.create_topics(
        {
            name: {
                "num_partitions": 3,
                "replication_factor": 1,
                "configs": {"retention.ms": "1000"},
            }
        },
        wait_for_metadata=True,
    )
    client.close()

    told = fraudstream(settings, "topics", "create")
    assert told.returncode == 1, told.stderr
    assert f"created {settings.environment}.transactions" in told.stdout
    assert f"differs, matters: {name} has partitions = 3, wanted 1" in told.stdout
    assert f"differs, matters: {name} has retention.ms = 1000, wanted -1" in told.stdout
    shown = fraudstream(settings, "topics", "show", "--json", "-")
    partitions = {topic["name"]: topic["partitions"] for topic in json.loads(shown.stdout)}
    assert partitions[name] == 3
    assert len(partitions) == len(all_topics())


def test_show_names_missing_topics_and_creates_none(settings: Settings) -> None:
    for _ in range(2):
        shown = fraudstream(settings, "topics", "show")
        assert shown.returncode == 0
        assert shown.stdout.count("missing, `fraudstream topics create`") == len(all_topics())


@pytest.mark.parametrize(
    ("partitions", "config", "expected"),
    [
        (4, {}, None),
        (6, {}, Difference("x", "partitions", "6", "4", matters=False)),
        (3, {}, Difference("x", "partitions", "3", "4", matters=True)),
        (
            4,
            {"max.message.bytes": "99"},
            Difference("x", "max.message.bytes", "99", "100", matters=True),
        ),
        (
            4,
            {"max.message.bytes": "101"},
            Difference("x", "max.message.bytes", "101", "100", matters=False),
        ),
        (4, {"retention.ms": "9"}, Difference("x", "retention.ms", "9", "-1", matters=True)),
        (
            4,
            {"cleanup.policy": "compact"},
            Difference("x", "cleanup.policy", "compact", "delete", matters=True),
        ),
    ],
)
def test_a_difference_matters_if_records_would_be_lost_or_refused(
    partitions: int, config: dict[str, str], expected: Difference | None
) -> None:
    wanted = Topic("x", 4, {"retention.ms": "-1", "max.message.bytes": "100"})
    found = Found("x", partitions, wanted.config | {"cleanup.policy": "delete"} | config)
    assert compare(found, wanted) == ([expected] if expected else [])


def test_a_broker_that_does_not_answer_is_named_in_time() -> None:
    begin_s = monotonic_s()
    with pytest.raises(DependencyUnreachable, match=r"127\.0\.0\.1:1 does not answer.*stack up"):
        create_topics("127.0.0.1:1", "none", 1, timeout_ms=500)
    assert monotonic_s() - begin_s < 15
