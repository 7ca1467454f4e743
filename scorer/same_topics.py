"""Whether Kafka answers, and the topics are still those that the worker began with: asked beside batches."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from fraudstream.clients.asking import Asking
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings
from scorer.assignment import WAYS_OUT

ASK_EVERY_S = 0.2
OTHERS_EVERY_S = 10.0
"""How often the topics that are not scored are asked for. Each answer about a topic is 52 bytes that
confluent-kafka 2.16 never gives back (its `Uuid`): six topics at each question were 135 MB a day."""
SILENT_S = 3.0
"""A broker that has not answered for so long is away."""
MOST_MISSING = 5
"""After so many answers in a row that a topic is not there, it is gone; a broker may say so as it starts."""


class SameTopics:
    """Looks at the id of each topic. librdkafka would read on in a topic of the same name."""

    def __init__(
        self, settings: Settings, scored: TopicFacts, others: Sequence[TopicFacts] = ()
    ) -> None:
        self._asking = Asking(settings)
        self._timeout_s = settings.request_timeout_ms / 1000
        self._scored = scored.name
        self._topics = {topic.name: topic for topic in (scored, *others)}
        self._others_s = -OTHERS_EVERY_S
        self._asked: dict[str, Future[Any]] = {}
        self._asked_s = 0.0
        self._heard_s = 0.0
        self._missing: dict[str, int] = {}
        """How often in a row the broker said that a topic is not there, by name."""
        self.silent = False
        """Whether Kafka has not answered for `SILENT_S`, as of the last look."""

    @property
    def answered(self) -> bool:
        """Return whether nothing that was asked is still on its way."""
        return all(answer.done() for answer in self._asked.values())

    def look(self, now_s: float) -> None:
        """Take the answer, if one has come, and ask again when it is time to; `now_s` is any clock.

        Raises:
            Refused: a topic is another, or gone.
        """
        if now_s - self._asked_s < ASK_EVERY_S:
            return
        if self.answered:
            self._take_and_ask(now_s)
        self.silent = now_s - self._heard_s > SILENT_S

    def heard(self, now_s: float) -> None:
        """Take note that Kafka has just answered, to this or to anything else."""
        self._heard_s, self.silent = now_s, False

    def _take_and_ask(self, now_s: float) -> None:
        answers = [self._check(self._topics[name], each) for name, each in self._asked.items()]
        if any(answers) or not answers:
            self.heard(now_s)
        else:
            self._asking.renew()
        self._asked_s = now_s
        names = TopicCollection(self._due(now_s))
        self._asked = self._asking.client.describe_topics(names, request_timeout=self._timeout_s)

    def _due(self, now_s: float) -> list[str]:
        """Return the topics to ask for now: all at times, and while one of them seems to be gone."""
        if not self._missing and now_s - self._others_s < OTHERS_EVERY_S:
            return [self._scored]
        self._others_s = now_s
        return [*self._topics]

    def _check(self, topic: TopicFacts, answer: "Future[Any]") -> bool:
        """Return whether the answer is a broker's."""
        try:
            found = answer.result()
        except KafkaException as exc:
            code = exc.args[0].code()
            if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._count_missing(topic)
            return bool(code >= KafkaError.UNKNOWN)  # below it are those of the client itself
        self._missing.pop(topic.name, None)
        if str(found.topic_id) != topic.topic_id:
            raise Refused(
                f"topic {topic.name} was recreated while this worker ran: what it has is of the former one; "
                f"{WAYS_OUT}"
            )
        return True

    def _count_missing(self, topic: TopicFacts) -> None:
        self._missing[topic.name] = self._missing.get(topic.name, 0) + 1
        if self._missing[topic.name] >= MOST_MISSING:
            raise Refused(f"topic {topic.name} is gone while this worker ran; {WAYS_OUT}")
