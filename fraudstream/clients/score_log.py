"""What was really served and what analysts said of it, read from Kafka for the trainer."""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.clients.topic_log import as_array, read_to_end
from fraudstream.core.errors import BadRecord, FraudstreamError
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Feedback, decode_feedback


class _Others(msgspec.Struct, gc=False):
    """The features of a set that did not serve."""

    features: list[float]


class _Logged(msgspec.Struct, gc=False):
    """The fields of a score record that training needs; the others are skipped while decoding."""

    transaction_id: str
    event_time_ms: int
    customer: str
    feature_set: str
    features: list[float]
    duplicate_of: int | None = None
    other_sets: dict[str, _Others] = {}

    def features_of(self, feature_set: str) -> list[float] | None:
        """Return the features of a set, by hash; None if it was not live then."""
        if feature_set == self.feature_set:
            return self.features
        other = self.other_sets.get(feature_set)
        return None if other is None else other.features


_decoder = msgspec.json.Decoder(list[_Logged])


@dataclass(frozen=True)
class ScoreLog:
    """Scored transactions as columns in the order of reading, N rows; what was left out is counted.

    `event_time_ms` int64 [N]; `features` float32 [N, F].
    """

    transaction_ids: list[str]
    customers: list[str]
    event_time_ms: npt.NDArray[np.int64]
    features: FloatArray
    duplicates: int
    other_feature_set: int


def read_scores(settings: Settings, feature_set: FeatureSet) -> ScoreLog:
    """Return all committed scores with features of `feature_set`, whether or not it served.

    Records with `duplicate_of` are left out, as the transaction stands in the log already.

    Raises:
        DependencyUnreachable: no broker answers.
        FraudstreamError: the topic does not exist.
    """
    ids: list[str] = []
    customers: list[str] = []
    times: list[int] = []
    blocks: list[FloatArray] = [np.empty((0, len(feature_set.features)), np.float32)]
    duplicates = others = 0
    for batch in read_to_end(settings, topic_name(settings.environment, "scores")):
        logged = _decoded([message.value() or b"null" for message in batch])
        fresh = [record for record in logged if record.duplicate_of is None]
        rows = [(record, record.features_of(feature_set.hash)) for record in fresh]
        ours = [record for record, features in rows if features is not None]
        duplicates += len(logged) - len(fresh)
        others += len(fresh) - len(ours)
        ids += [record.transaction_id for record in ours]
        customers += [record.customer for record in ours]
        times += [record.event_time_ms for record in ours]
        if ours:
            found = [features for _, features in rows if features is not None]
            blocks.append(np.array(found, np.float32))
    return ScoreLog(
        transaction_ids=ids,
        customers=customers,
        event_time_ms=np.array(times, np.int64),
        features=np.concatenate(blocks),
        duplicates=duplicates,
        other_feature_set=others,
    )


def read_feedback(settings: Settings) -> list[Feedback]:
    """Return all readable labels in the order of their offsets; the unreadable are left to the scorer.

    Raises:
        DependencyUnreachable: no broker answers.
        FraudstreamError: the topic does not exist.
    """
    answers = []
    for batch in read_to_end(settings, topic_name(settings.environment, "feedback")):
        for message in batch:
            try:
                answers.append(decode_feedback(message.value()))
            except BadRecord:
                continue  # The scorer leaves it out as well, and has logged its offset and the reason.
    return answers


def _decoded(values: list[bytes]) -> list[_Logged]:
    """Decode a batch at once."""
    try:
        return _decoder.decode(as_array(values))
    except msgspec.DecodeError as exc:
        raise FraudstreamError(
            f"the topic scores holds a record that is no score ({exc}): "
            "train in an environment whose scores come from `fraudstream scorer` alone"
        ) from exc
