"""The feature store: exact features as a fold of the log, kept in Redis or Valkey, one call a batch."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_errors import (
    Behind,
    ReplyGone,
    RolledBack,
    StateInDoubt,
    StateReplaced,
    Unproven,
)
from fraudstream.clients.feature_library import (
    Applied,
    Slice,
    apply_blob,
    build_library,
    bunches,
    label_blob,
    read_replies,
)
from fraudstream.clients.feature_server import FeatureServer
from fraudstream.clients.feature_state import FeatureState, Meta
from fraudstream.core.feature_set import NINE, FeatureSet
from fraudstream.core.transaction import Feedback

__all__ = [
    "Applied",
    "Behind",
    "FeatureStore",
    "ReplyGone",
    "RolledBack",
    "Slice",
    "StateInDoubt",
    "StateReplaced",
    "Unproven",
]


CALL_RECORDS = 1_000
"""A call brings no more: it reads the entities of all that it brings before its time begins."""
CALL_MS = 25
"""A call stops after so much of the server's CPU time and is made again: others wait no longer for it."""
LOOK_S = 1.0
"""How often a server at work is looked at: whether it evicts keys meanwhile."""


class FeatureStore:
    """One connection to the feature state of one environment. Not thread-safe."""

    def __init__(self, state: FeatureState) -> None:
        """Wrap a state; use `connect`, which also checks the server."""
        self.state = state
        self._server = state.server
        self._library = state.server.library
        self._seen_seq = 0
        self._looked_s = monotonic_s()

    @classmethod
    def connect(
        cls,
        redis_url: str,
        environment: str,
        feature_set: FeatureSet = NINE,
        *,
        connect_timeout_ms: int,
        request_timeout_ms: int,
    ) -> Self:
        """Connect, check the server, load the function library and adopt or begin the state.

        Raises:
            DependencyUnreachable: the server does not answer; names the address.
            Refused: the server may lose data, cannot write, or holds a state that is not this one's.
            SettingsError: `redis_url` is no URL of a Redis server.
        """
        server = FeatureServer.connect(
            redis_url,
            build_library(feature_set),
            connect_timeout_ms=connect_timeout_ms,
            request_timeout_ms=request_timeout_ms,
        )
        store = cls(FeatureState(server, environment, feature_set))
        store.adopt()
        return store

    def adopt(self) -> Meta:
        """Take the state as it is now for the one to work on; begin one if there is none.

        Raises:
            DependencyUnreachable: the server does not answer.
            Refused: the state is not this one's.
        """
        self._seen_seq = 0
        return self.state.adopt()

    def bind(self, topics: Mapping[str, str]) -> None:
        """Tie the state to the topics that it is a fold of; see `FeatureState.bind`."""
        self.state.bind(topics)

    def marks(self, topic_id: str, partitions: Sequence[int]) -> dict[int, int]:
        """Return the last applied offset of each partition, -1 for none; see `FeatureState.marks`."""
        return self.state.marks(topic_id, partitions)

    def apply(self, topic_id: str, slices: Sequence[Slice]) -> Applied:
        """Apply a batch, each partition at most once in it; records applied before get their stored reply.

        A batch of more than `CALL_RECORDS` takes several calls. Each call to the server is all or nothing;
        a batch is safe to repeat after any error.

        Raises:
            StateInDoubt: the state may lack something; a slice that begins after the mark is `Behind`.
            ReplyGone: a record was brought again after it was committed.
            DependencyUnreachable: the server does not answer, or refuses to write for now.
            Refused: the server evicts keys since a while.
        """
        replies: list[bytes] = []
        repeated: list[int] = []
        parts: list[Slice] = []
        for bunch in bunches(slices, CALL_RECORDS):
            blob = apply_blob(self._library, self.state.text, topic_id, bunch)
            first: Any = self._call("apply", topic_id, blob)
            last: Any = first
            while not last[0]:
                last = self._call("apply", topic_id, blob)
            replies.append(last[1])
            repeated += first[2:]
            parts += bunch
        applied = read_replies(self._library, b"".join(replies), repeated, parts)
        self._seen_seq = max(self._seen_seq, int(applied.apply_seq.max(initial=0)))
        return applied

    def confirm(self) -> None:
        """Ask whether the state is still the one that was adopted.

        Raises:
            StateInDoubt: it is not, or may lack something.
            DependencyUnreachable: the server does not answer.
        """
        self._call("apply", "", apply_blob(self._library, self.state.text, "", []))

    def apply_labels(
        self,
        topic_id: str,
        *,
        previous_offset: int,
        last_offset: int,
        offsets: Sequence[int],
        labels: Sequence[Feedback],
    ) -> int:
        """Apply labels in offset order (feedback has one partition, 0); return how many were new.

        Raises:
            StateInDoubt: the state may lack something; labels that begin after the mark are `Behind`.
            DependencyUnreachable: the server does not answer, or refuses to write for now.
        """
        positions = (previous_offset, last_offset, offsets)
        blob = label_blob(self.state.text, topic_id, positions, labels)
        return self._to_the_end("label", topic_id, blob)

    def pack_fold(self, topic_id: str, slices: Sequence[Slice]) -> bytes:
        """Return slices as `fold` takes them; may be called in another thread."""
        return apply_blob(self._library, self.state.text, topic_id, slices)

    def fold(self, topic_id: str, packed: bytes) -> int:
        """Apply records that the group has committed before, without replies; return how many were new.

        Raises:
            StateInDoubt: the state is no longer the one that the slices were packed for, or ends before them.
            DependencyUnreachable: the server does not answer, or refuses to write for now.
        """
        return self._to_the_end("fold", topic_id, packed)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _to_the_end(self, function: str, topic_id: str, blob: bytes) -> int:
        """Make a call until all of it is applied; return how many were new."""
        done, new = 0, 0
        while not done:
            reply: Any = self._call(function, topic_id, blob)
            done, new = reply[0], new + reply[1]
        return new

    def _call(self, function: str, topic_id: str, blob: bytes) -> object:
        if monotonic_s() - self._looked_s > LOOK_S:
            self.state.check_server()
            self._looked_s = monotonic_s()
        keys = (self.state.prefix, self.state.meta_key)
        arguments = (blob, self._seen_seq, CALL_MS)
        return self._server.call(function, keys, *arguments, topic_id=topic_id)
