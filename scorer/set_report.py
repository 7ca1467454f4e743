"""What the feature sets of an environment are at: for `fraudstream features sets`."""

from typing import Literal

import msgspec

from fraudstream.clients.feature_state import FeatureState, open_state
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import SetLog
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import group_name


class ReportedSet(msgspec.Struct, frozen=True, kw_only=True):
    """One set: whether the champion reads it, and how many scored transactions it lacks."""

    name: str
    hash: str
    state: Literal["filling", "live"]
    champion: bool
    lacking: int
    features: tuple[str, ...]


def report_sets(settings: Settings) -> list[ReportedSet]:
    """Return the sets of an environment, the live ones first, in the order in which they went live.

    Raises:
        DependencyUnreachable: a server does not answer.
        Refused: a topic is missing.
    """
    sets = SetLog(settings).refresh()
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    champion = registry.alias(model_name(settings.environment), CHAMPION)
    topic = topic_name(settings.environment, "transactions")
    facts = topic_facts(settings, [topic])[topic]
    with TopicReader(settings, group=group_name(settings)) as reader:
        committed = reader.committed(topic, range(facts.partitions))

    def reported(feature_set: FeatureSet, state: Literal["filling", "live"]) -> ReportedSet:
        return ReportedSet(
            name=feature_set.name,
            hash=feature_set.hash,
            state=state,
            champion=champion is not None and champion.feature_set == feature_set.hash,
            lacking=_lacking(open_state(settings, feature_set), facts.topic_id, committed),
            features=feature_set.features,
        )

    return [
        *(reported(each, "live") for each in sets.live.values()),
        *(reported(each, "filling") for each in sets.filling.values()),
    ]


def _lacking(state: FeatureState, topic_id: str, committed: dict[int, int]) -> int:
    if state.look() is None:
        return sum(committed.values())
    marks = state.marks(topic_id, list(committed))
    return sum(max(0, end - 1 - marks[partition]) for partition, end in committed.items())
