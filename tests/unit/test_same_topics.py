"""Whether Kafka answers, by what a worker asks it beside its batches; the clock is the test's."""

import pytest

from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.settings import make_settings
from scorer.same_topics import SameTopics
from tests.processes import wait_until

NOWHERE = make_settings({"kafka_bootstrap": "127.0.0.1:1", "request_timeout_ms": 100})


@pytest.fixture
def asked() -> SameTopics:
    """A worker has asked at 100.0 s, and no broker answers."""
    topics = SameTopics(NOWHERE, TopicFacts("t", "id", 1))
    topics.look(100.0)
    return topics


def test_a_broker_is_silent_once_it_has_not_answered_for_three_seconds(asked: SameTopics) -> None:
    for now_s, silent in ((100.1, False), (101.0, False), (102.9, False), (103.1, True)):
        asked.look(now_s)
        assert asked.silent == silent


def test_a_request_that_nobody_answered_is_no_answer(asked: SameTopics) -> None:
    wait_until(lambda: asked.answered, timeout_s=10, what="given up by the client")
    asked.look(102.0)
    wait_until(lambda: asked.answered, timeout_s=10, what="given up once more")
    asked.look(104.0)
    assert asked.silent


def test_a_broker_that_took_a_commit_is_not_silent(asked: SameTopics) -> None:
    asked.look(104.0)
    assert asked.silent
    asked.heard(104.1)
    assert not asked.silent
    asked.look(107.0)
    assert not asked.silent
    asked.look(107.2)
    assert asked.silent
