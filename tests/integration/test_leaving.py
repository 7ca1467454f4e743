"""A worker that is told to end while it is being given partitions: it ends, and asks nothing more."""

import threading

from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.clients import kafka
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import Assignment, group_name
from scorer.lost_marks import LostMarks
from tests.processes import wait_until


class Watched(Assignment):
    """Notes how many partitions it was told of."""

    told = 0

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.told += len(partitions)
        super()._assigned(consumer, partitions)


def test_partitions_that_come_while_a_worker_closes_its_consumer_are_not_taken_up(
    topics: Settings,
) -> None:
    group, name = group_name(topics), topic_name(topics.environment, "transactions")
    facts = kafka.topic_facts(topics, [name])[name]
    kafka.require_coordinator(topics, group, name)
    consumer = kafka.worker_consumer(topics, group=group, slot=0)
    lost_marks = LostMarks(topics, group, 0, facts.partitions)
    assignment = Watched(consumer, facts, lost_marks, LogBounds(topics))
    assignment.subscribe()
    admin = AdminClient(kafka.common(topics))

    def given() -> bool:
        described = admin.describe_consumer_groups([group])[group].result()
        return described.state == ConsumerGroupState.STABLE and len(described.members) == 1

    wait_until(given, timeout_s=30, what="the group has given the worker its partitions")
    threading.Event().wait(1.0)  # the answer reaches the client, which nobody polls

    leaving = threading.Thread(
        target=assignment.leave, daemon=True
    )  # a defect would never come back
    leaving.start()
    leaving.join(30)

    assert not leaving.is_alive()
    assert assignment.told == facts.partitions
    assert assignment.generation == 0, "nothing was taken up"
    assert assignment.positions == {}
    assert kafka.kept_places(topics, group) == [kafka.instance_id(group, 0)], "its place is kept"
