"""Builds the hot path with all its clients connected. Without Faust, which is loaded later."""

import uuid
from functools import partial

from confluent_kafka import Producer, TopicPartition

from fraudstream.clients import kafka
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.group_places import GroupPlaces
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import SetLog
from fraudstream.core.errors import Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import model_name
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import WAYS_OUT, Assignment, group_name
from scorer.champion import Champion
from scorer.contact import Contact, Watched, answers_new_client, end_at_once
from scorer.deaths import Deaths
from scorer.evenness import Evenness
from scorer.hot_path import HotPath
from scorer.labels import LabelReader
from scorer.limits import RESULTS, Limits
from scorer.live_sets import LiveSets
from scorer.lost_marks import LostMarks
from scorer.neighbours import Neighbours
from scorer.output import TransactionalOutput
from scorer.parts import Parts
from scorer.same_topics import SameTopics

READ = ("transactions", "feedback")
"""The topics of which the features are a fold."""


def build_hot_path(settings: Settings, slot: int) -> HotPath:
    """Return the hot path with all its clients connected.

    Raises:
        DependencyUnreachable: Kafka, Redis or MLflow does not answer.
        Refused: a topic is missing, or the feature store would lose data.
    """
    names = {name: topic_name(settings.environment, name) for name in (*READ, *RESULTS)}
    facts = kafka.topic_facts(settings, list(names.values()))
    log = SetLog(settings)
    log.begin(actor="scorer")
    topic_ids = {name: facts[names[name]].topic_id for name in READ}
    live = LiveSets(log, partial(connect, settings, topic_ids))
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    champion = Champion(registry, model_name(settings.environment), live.sets)
    group = group_name(settings)
    kafka.require_coordinator(settings, group, names["transactions"])
    consumer = kafka.worker_consumer(settings, group=group, slot=slot)
    feedback = kafka.reader(settings, group=f"{group}.feedback", tell_end=True)
    labels = LabelReader(feedback, live, facts[names["feedback"]])
    limits = Limits(settings)

    def make_producer() -> Producer:
        name = kafka.instance_id(group, slot)
        return kafka.transactional_producer(
            settings, transactional_id=name, most_bytes=limits.lowest
        )

    transactions = facts[names["transactions"]]
    output = TransactionalOutput(make_producer, settings.environment)
    lost_marks = LostMarks(settings, group, slot, transactions.partitions)
    assignment = Assignment(consumer, transactions, lost_marks, LogBounds(settings))
    return HotPath(
        Parts(
            settings=settings,
            consumer=consumer,
            live=live,
            transactions=transactions,
            feedback=facts[names["feedback"]],
            labels=labels,
            champion=champion,
            assignment=assignment,
            evenness=Evenness(
                consumer,
                transactions.name,
                live.lead_ms,
                Neighbours(GroupPlaces(settings, transactions, group), transactions.partitions),
            ),
            output=output,
            limits=limits,
            same_topics=SameTopics(
                settings, transactions, [each for each in facts.values() if each != transactions]
            ),
            contact=Contact(
                [
                    Watched(consumer, TopicPartition(transactions.name, 0)),
                    Watched(feedback, TopicPartition(names["feedback"], 0), labels.gate),
                ],
                partial(answers_new_client, settings),
                end_at_once,
            ),
            deaths=Deaths(
                assignment,
                lambda places: output.commit([], places, assignment.group_metadata),
                owner=f"{slot}.{uuid.uuid4().hex[:12]}",
                topic=transactions.name,
                most_in_a_row=settings.poison_in_a_row,
            ),
        )
    )


def connect(settings: Settings, topic_ids: dict[str, str], feature_set: FeatureSet) -> FeatureStore:
    """Return the store of one live set, tied to the topics.

    Raises:
        DependencyUnreachable: Redis does not answer.
        Refused: the server would lose data, or the state is of another version or topic.
    """
    store = FeatureStore.connect(
        settings.redis_url,
        settings.environment,
        feature_set,
        connect_timeout_ms=settings.connect_timeout_ms,
        request_timeout_ms=settings.request_timeout_ms,
    )
    try:
        store.bind(topic_ids)
    except Refused as exc:
        raise Refused(f"{exc}; {WAYS_OUT}") from exc
    return store
