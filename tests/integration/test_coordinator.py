"""A group whose coordinator is made anew again and again: who asks what is committed is told, and lives."""

import subprocess
import sys
from collections.abc import Callable

from fraudstream.core.settings import Settings
from tests.integration.test_odd_input import bare_stack

__all__ = ["bare_stack"]

ASKS = """
import sys
import threading
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fraudstream.clients import kafka
from fraudstream.clients.group_places import GroupPlaces
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

settings = Settings(kafka_bootstrap=sys.argv[1])
group, name = "g", topic_name(settings.environment, "transactions")
facts = kafka.topic_facts(settings, [name])[name]
admin = AdminClient(kafka.common(settings) | {"log_level": 0})
places = GroupPlaces(settings, facts, group)
told = 0
for _ in range(20):
    for deleted in admin.delete_topics(["__consumer_offsets"]).values():
        try:
            deleted.result()
        except KafkaException:
            pass  # not made yet
    places.ask()
    kafka.require_coordinator(settings, group, name)
    try:
        while (found := places.answer()) is None:
            threading.Event().wait(0.01)
        told += set(found) == {0, 1}
    except KafkaUnreachable:
        pass  # to be asked again
print(told)
"""
"""In a process of its own: an admin client that asks for offsets at such a moment ends it by SIGSEGV."""


def test_a_coordinator_that_is_not_one_any_more_is_asked_again(
    bare_stack: Callable[[str], Settings],
) -> None:
    settings = bare_stack("")
    asked = subprocess.run(
        [sys.executable, "-c", ASKS, settings.kafka_bootstrap],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert int(asked.stdout) > 0
