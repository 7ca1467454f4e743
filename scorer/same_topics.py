"""Whether the topics are still those that the worker began with: asked for beside the batches."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from fraudstream.clients.kafka import TopicFacts, common
from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings
from scorer.assignment import WAYS_OUT

ASK_EVERY_S = 0.2
MOST_MISSING = 5
"""After so many answers in a row that a topic is not there, it is gone; a broker may say so as it starts."""


class SameTopics:
    """Looks at the id of each topic. librdkafka would read on in a topic of the same name."""

    def __init__(self, settings: Settings, topics: Sequence[TopicFacts]) -> None:
        self._admin = AdminClient(common(settings))
        self._timeout_s = settings.request_timeout_ms / 1000
        self._topics = {topic.name: topic for topic in topics}
        self._asked: dict[str, Future[Any]] = {}
        self._asked_s = 0.0
        self._missing = 0

    def look(self, now_s: float) -> None:
        """Take the answer, if one has come, and ask again when it is time to; `now_s` is any clock.

        Raises:
            Refused: a topic is another, or gone.
        """
        if now_s - self._asked_s < ASK_EVERY_S or not all(f.done() for f in self._asked.values()):
            return
        asked, self._asked_s = self._asked, now_s
        for name, answer in asked.items():
            self._check(self._topics[name], answer)
        names = TopicCollection([*self._topics])
        self._asked = self._admin.describe_topics(names, request_timeout=self._timeout_s)

    def _check(self, topic: TopicFacts, answer: "Future[Any]") -> None:
        try:
            found = answer.result()
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._count_missing(topic)
            return  # a broker that is away is told of elsewhere
        self._missing = 0
        if str(found.topic_id) != topic.topic_id:
            raise Refused(
                f"topic {topic.name} was recreated while this worker ran, its features are of the former "
                f"one; {WAYS_OUT}"
            )

    def _count_missing(self, topic: TopicFacts) -> None:
        self._missing += 1
        if self._missing >= MOST_MISSING:
            raise Refused(f"topic {topic.name} is gone while this worker ran; {WAYS_OUT}")
