"""Known answers sent through a store, one case an environment."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from fraudstream.clients.feature_store import FeatureStore
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.transaction import Feedback
from fraudstream.core.twin import TwinReply
from tests.feature_cases import Case
from tests.feature_streams import TOPIC, Connect, one, rows, send_labels


def last_reply(case: Case, store: FeatureStore) -> TwinReply:
    """Send the stream of a case one by one; return the reply to the last transaction."""
    positions, feedback = itertools.count(), itertools.count()
    for record in case.stream:
        if isinstance(record, Feedback):
            send_labels(store, [record], next(feedback))
        else:
            reply = rows(store.apply(TOPIC, one(record, next(positions))))[0]
    return reply


def wrong_cases(connect: Connect, cases: Sequence[Case], feature_set: FeatureSet) -> Iterator[str]:
    """Yield the names of the cases that the store gets wrong."""
    for number, case in enumerate(cases):
        reply = last_reply(case, connect(f"-{number}", feature_set))
        found = dict(zip(feature_set.features, reply.features, strict=True))
        if any(found[name] != np.float32(value) for name, value in case.want.items()):
            yield case.name
