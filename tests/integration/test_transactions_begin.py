"""A producer that begins while the broker still has to end what another of its name has left open."""

import subprocess
import sys

import pytest

from fraudstream.clients import kafka
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.ledger import Log

NAME = "begins"
DIES = """
import os, sys
from fraudstream.clients import kafka
from fraudstream.core.settings import Settings

producer = kafka.transactional_producer(
    Settings(kafka_bootstrap=sys.argv[1]), transactional_id=sys.argv[2]
)
kafka.init_transactions(producer, 30)
producer.begin_transaction()
producer.produce(sys.argv[3], b"left open")
assert producer.flush(30) == 0
os._exit(0)
"""


@pytest.mark.parametrize("partitions", [1])
def test_what_another_left_open_is_aborted_and_the_new_one_commits(
    topics: Settings, log: Log
) -> None:
    topic = topic_name(topics.environment, "scores")
    for number in range(3):
        subprocess.run(
            [sys.executable, "-c", DIES, topics.kafka_bootstrap, NAME, topic],
            check=True,
            timeout=90,
        )
        producer = kafka.transactional_producer(topics, transactional_id=NAME)
        kafka.init_transactions(producer, 30)
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number)
        producer.commit_transaction(30)
    assert [each.value for each in log.records("scores")] == [b"0", b"1", b"2"]
