"""Puts scores and labels into the topics as the scorer and analysts would, for the tests of training."""

from collections.abc import Sequence

import msgspec
from confluent_kafka import Producer

from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.scores import Score, SetFeatures, Stages
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Entities, Feedback, encode
from tests.model_samples import rows

T0 = 1_532_476_800_000
SPAN_MS = 14 * DAY_MS
"""Scores are spread evenly over this event time from T0 on."""


def serve(settings: Settings, count: int, *, fraud_labels: bool = True, seed: int = 7) -> int:
    """Commit `count` scores without a model, and the labels of their frauds 7 days later; return the frauds.

    One more score is produced in an aborted transaction: whoever reads uncommitted records sees it.
    """
    features, labels = rows(count, seed=seed)
    scores = [
        made_score(index, event_time_ms=T0 + index * SPAN_MS // count, features=row)
        for index, row in enumerate(features.tolist())
    ]
    frauds = [score for score, fraud in zip(scores, labels.tolist(), strict=True) if fraud]
    answers = [fraud_label(score) for score in frauds] if fraud_labels else []
    producer = transactional(settings)
    producer.begin_transaction()
    send(producer, settings, [made_score(count, event_time_ms=T0, features=[0.0] * 9)], [])
    producer.flush()
    producer.abort_transaction()
    producer.begin_transaction()
    send(producer, settings, scores, answers)
    producer.commit_transaction()
    return len(frauds)


def made_score(
    number: int,
    *,
    event_time_ms: int,
    features: list[float],
    feature_set: str = NINE.hash,
    duplicate_of: int | None = None,
    other_sets: dict[str, SetFeatures] | msgspec.UnsetType = msgspec.UNSET,
) -> Score:
    """Return the record of transaction `number`, scored while no model was champion."""
    return Score(
        v=1,
        transaction_id=str(number),
        event_time_ms=event_time_ms,
        customer=str(number % 50),
        terminal="1",
        amount_minor=100,
        currency="EUR",
        source_partition=0,
        source_offset=number,
        source_timestamp_ms=event_time_ms,
        score=None,
        decision="none",
        threshold=None,
        model_version=None,
        challenger_score=None,
        feature_set=feature_set,
        features=features,
        other_sets=other_sets,
        apply_seq=number,
        duplicate_of=duplicate_of,
        age_ms=1,
        stale=False,
        stages=Stages(0.1, 0.1, 0.1, 0.1),
    )


def fraud_label(score: Score) -> Feedback:
    """Return the label `fraud` of a transaction, given 7 days after it."""
    return Feedback(
        1,
        score.transaction_id,
        score.event_time_ms,
        Entities(score.customer, score.terminal),
        "fraud",
        score.event_time_ms + NINE.label_delay_ms,
    )


def transactional(settings: Settings) -> Producer:
    """Return a producer with its transactions initialised."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "transactional.id": f"{settings.environment}.test",
            "partitioner": "murmur2_random",
        }
    )
    producer.init_transactions(30)
    return producer


def send(
    producer: Producer, settings: Settings, scores: Sequence[Score], answers: Sequence[Feedback]
) -> None:
    """Produce scores and labels in the transaction that is open."""
    for score in scores:
        value = msgspec.json.encode(score)
        producer.produce(
            topic_name(settings.environment, "scores"), key=score.customer, value=value
        )
    for answer in answers:
        name = topic_name(settings.environment, "feedback")
        producer.produce(name, key=answer.transaction_id, value=encode(answer))
