"""A worker that is told to end while it is being given partitions: it ends, and asks nothing more."""

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from fraudstream.clients import kafka
from fraudstream.clients.clock import monotonic_s
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import Assignment, group_name
from scorer.lost_marks import LostMarks
from tests.processes import wait_until


def test_partitions_that_come_while_a_worker_closes_its_consumer_are_not_taken_up(
    topics: Settings,
) -> None:
    group, name = group_name(topics), topic_name(topics.environment, "transactions")
    facts = kafka.topic_facts(topics, [name])[name]
    kafka.require_coordinator(topics, group)
    consumer = kafka.worker_consumer(topics, group=group, slot=0)
    assignment = Assignment(consumer, facts, LostMarks(topics, group, 0, facts.partitions))
    assignment.subscribe()
    admin = AdminClient(kafka.common(topics))

    def given() -> bool:
        described = admin.describe_consumer_groups([group])[group].result()
        return described.state == ConsumerGroupState.STABLE and len(described.members) == 1

    wait_until(given, timeout_s=30, what="the group has given the worker its partitions")
    begun = monotonic_s()

    assignment.leave()

    assert monotonic_s() - begun < 5
    assert assignment.generation == 0, "nothing was taken up"
    assert assignment.positions == {}
