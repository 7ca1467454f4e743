"""What a feature state is and who may change it: one record, moved by compare-and-set, and a lease.

Each feature set of an environment has a state of its own: record, lease and keys are named by its hash. The
record goes with every call; the server refuses a call that brings another. So each move, whoever makes it,
stops every other worker at its next call:

    none -> ready                  begun by the first worker
    none -> rebuilding             a new set is filled while others serve
    ready -> rebuilding            somebody found that it lacks what the group has committed
    rebuilding -> rebuilding       the holder of the lease begins its turn; the one before can write no more
    rebuilding -> ready            it holds all that is committed
    ready -> snapshot -> ready     it is being copied: scoring waits
    ready -> ready                 all workers shall look anew which sets are live
    any -> none                    the server has evicted keys
    ready -> retired               no worker keeps it up any more, its keys are deleted
    retired -> rebuilding          it is filled once more
"""

import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.feature_library import build_library
from fraudstream.clients.feature_server import Evicting, FeatureServer
from fraudstream.core.errors import DependencyUnreachable, Refused
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.settings import Settings

STATE_VERSION = 3
SHORT_HASH = 8
"""Hex digits of a set's hash in each of its keys: a byte of a key costs as much as one of a value."""
LEASE_MS = 6_000
"""A holder that has not been heard of for so long has lost its turn."""
_RENEW_S = 1.0
_SEQ_PER_MS = 1_024
_BUCKET = 0

Phase = Literal["ready", "rebuilding", "snapshot", "retired"]


def first_seq(at_ms: int) -> int:
    """Return the apply_seq after which counting begins anew: above all that were given out before that time.

    That holds for servers that apply less than 1,024,000 transactions a second, and stays below 2^53,
    where a double and JSON in JavaScript are exact, until the year 2248.
    """
    return at_ms * _SEQ_PER_MS


class Meta(msgspec.Struct, frozen=True):
    """What the state is; `revision` grows with each move, `holder` is the token of who works on it."""

    state_version: int
    feature_set: str
    incarnation: str
    state: Phase = "ready"
    revision: int = 0
    holder: str = ""


class FeatureState:
    """The state of one feature set in an environment: its record, its marks, the topics it is a fold of."""

    def __init__(self, server: FeatureServer, environment: str, feature_set: FeatureSet) -> None:
        self.server = server
        self.feature_set = feature_set
        self.tag = f"{{{environment}:b{_BUCKET}}}"
        self.meta_key = f"{self.tag}:meta:{feature_set.hash}"
        """The key of the record."""
        self.meta = Meta(STATE_VERSION, feature_set.hash, "")
        self.text = ""
        """The record as it stands on the server, "" for none."""
        self._topics: dict[str, str] = {}

    @property
    def prefix(self) -> str:
        """Return what all other keys of this incarnation begin with."""
        return self.prefix_of(self.meta.incarnation)

    def fresh(self, state: Phase = "ready", *, holder: str = "") -> Meta:
        """Return the record of an empty state in keys that no state has had."""
        incarnation = new_incarnation(self.feature_set)
        return Meta(STATE_VERSION, self.feature_set.hash, incarnation, state, holder=holder)

    def prefix_of(self, incarnation: str) -> str:
        """Return what the keys of an incarnation begin with."""
        return f"{self.tag}:v{STATE_VERSION}:{incarnation}:"

    def look(self) -> Meta | None:
        """Read the record as it is now; None if there is no state.

        Raises:
            DependencyUnreachable: the server does not answer.
            Refused: the state is of another version.
        """
        with self.server.translated():
            raw: Any = self.server.client.get(self.meta_key)
        if raw is None:
            self.text = ""
            return None
        try:
            meta = msgspec.json.decode(raw, type=Meta)
        except msgspec.DecodeError as exc:
            raise Refused(
                f"key {self.meta_key} at {self.server.address} is no feature state: {exc}"
            ) from exc
        self._check(meta)
        self.meta, self.text = meta, raw.decode()
        return meta

    def adopt(self) -> Meta:
        """Read the record, or begin a new state where there is none, and tie it to the topics.

        A new one gives out no place that an earlier one gave: an older copy of that may come back.

        Raises:
            DependencyUnreachable: the server does not answer.
            Refused: the state is of another version or topic.
        """
        while (meta := self.look()) is None:
            self.put(self.fresh(), proven=True, least_seq=first_seq(now_ms()))
        if meta.state != "retired":
            self.bind(self._topics)
        return meta

    def bind(self, topics: Mapping[str, str]) -> None:
        """Tie the state to the topics that it is a fold of: ids by name, `{"transactions": "..."}`.

        Raises:
            Refused: the state was folded from another topic of that name.
            DependencyUnreachable: the server does not answer.
        """
        self._topics = dict(topics)
        for name, topic_id in topics.items():
            key = f"{self.prefix}topic:{name}"
            with self.server.translated():
                self.server.client.set(key, topic_id, nx=True)
                bound: Any = self.server.client.get(key)
            if bound is not None and bound.decode() != topic_id:
                raise Refused(
                    f"topic {name} was made anew (id {topic_id}): the features at {self.server.address} "
                    f"are those of the one before it (id {bound.decode()})"
                )

    def check_server(self) -> None:
        """Refuse a server that evicts keys; if it did, give the state up: nothing shows what it lacks.

        Raises:
            DependencyUnreachable: the server does not answer.
            Refused: it evicts keys.
        """
        try:
            self.server.check_again()
        except Evicting as exc:
            if not exc.evicted:
                raise
            with self.server.translated():
                self.server.client.delete(self.meta_key)
            raise Refused(
                f"{exc}; it has evicted {exc.evicted} keys since it began, so the features of "
                f"{self.feature_set.name} are rebuilt by the next worker"
            ) from exc

    def marks(self, topic_id: str, partitions: Sequence[int]) -> dict[int, int]:
        """Return the last applied offset of each partition, -1 for none.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        if not partitions:
            return {}
        keys = [f"{self.prefix}m:{topic_id}:{partition}" for partition in partitions]
        with self.server.translated():
            values: Any = self.server.client.mget(keys)
        return {
            partition: -1 if value is None else int(value)
            for partition, value in zip(partitions, values, strict=True)
        }

    def move(
        self,
        to: Phase,
        *,
        holder: str = "",
        proven: bool = False,
        least_seq: int = 0,
        process: str = "",
    ) -> bool:
        """Move the state from what was last read; False if somebody else has moved it since.

        `proven`: it is whole, or `holder` makes it so; without it a server that began anew takes no calls.
        `process`: the run id of the server of which the caller knows what it says; False for another's,
        which may have lost the last of that.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        changed = msgspec.structs.replace(
            self.meta, state=to, holder=holder, revision=self.meta.revision + 1
        )
        return self.put(changed, proven=proven, least_seq=least_seq, process=process)

    def vouch(self, at_ms: int, process: str) -> bool:
        """Say that the state, as last read of that process, holds all that is committed; see `move`.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        return self.put(self.meta, proven=True, least_seq=first_seq(at_ms), process=process)

    def finish(self, at_ms: int, process: str) -> int | None:
        """Say that the state, filled on that process of the server, is whole; delete what former ones left.

        Returns how many keys that were; None if the state was moved, or the server began anew, meanwhile:
        what was filled is there as far as its marks tell.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        if not self.move("ready", proven=True, least_seq=first_seq(at_ms), process=process):
            return None
        return self.forget_others()

    def put(
        self, meta: Meta, *, proven: bool = False, least_seq: int = 0, process: str = ""
    ) -> bool:
        """Make `meta` the record if it still is as last read; see `move`.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        text = self.text if meta == self.meta and self.text else msgspec.json.encode(meta).decode()
        keys = (self.prefix_of(meta.incarnation), self.meta_key)
        arguments = (self.text, text, int(proven), least_seq, process)
        if not self.server.call("change", keys, *arguments):
            return False
        self.meta, self.text = meta, text
        return True

    def forget_others(self) -> int:
        """Delete keys of the set's other incarnations while the state is as last read; return their number.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        client = self.server.client
        present = self.prefix.encode()
        gone = 0
        with self.server.translated():
            for key in client.scan_iter(pattern_of(f"{self.tag}:v"), count=1_000):
                if not key.startswith(present) and self._is_ours(key):
                    gone += int(self.server.call("forget", (self.meta_key,), self.text, key))  # type: ignore[call-overload]
        return gone

    def _is_ours(self, key: bytes) -> bool:
        """Tell whether a key is of this set, or from before each set had keys of its own."""
        named, dot, _ = key.split(b":", 4)[3].partition(b".")
        return not dot or named.decode() == self.feature_set.hash[:SHORT_HASH]

    def _check(self, meta: Meta) -> None:
        """Refuse a state that is not this program's.

        Raises:
            Refused: it is of another version.
        """
        how = (
            "set FRAUDSTREAM_ENVIRONMENT to a new name, whose state is filled from the log, or delete "
            f"the keys {self.tag}*"
        )
        if meta.state_version > STATE_VERSION:
            raise Refused(
                f"the feature state at {self.server.address} is of version {meta.state_version}, this "
                f"program knows up to {STATE_VERSION}: update fraudstream, or {how}"
            )
        if meta.state_version < STATE_VERSION:
            raise Refused(
                f"the feature state at {self.server.address} is of version {meta.state_version}, this "
                f"program computes version {STATE_VERSION}: {how}"
            )


def open_state(settings: Settings, feature_set: FeatureSet) -> FeatureState:
    """Return the state of a set in the environment of the settings, nothing of it read or begun.

    Raises:
        DependencyUnreachable: the server does not answer.
        Refused: the server may lose data, or cannot write.
    """
    server = FeatureServer.connect(
        settings.redis_url,
        build_library(feature_set),
        connect_timeout_ms=settings.connect_timeout_ms,
        request_timeout_ms=settings.request_timeout_ms,
    )
    return FeatureState(server, settings.environment, feature_set)


class Lease:
    """The right to work on a state, for a limited time; its end is left to the server's clock."""

    def __init__(self, state: FeatureState, token: str) -> None:
        self._server = state.server
        self._key = lease_key(state)
        self._renewed_s = monotonic_s()
        self.token = token

    @classmethod
    def take(cls, state: FeatureState, holder: str = "") -> Self | None:
        """Take the lease; None while somebody else has it.

        `holder` names the caller, and whoever it has come in the place of: such a one is dead, and its lease
        is not waited for. One that lives all the same writes no more once the caller has begun its turn, but
        may take the lease back until Kafka has told it that it is fenced.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        key, token = lease_key(state), f"{holder}/{secrets.token_hex(8)}"
        client = state.server.client
        with state.server.translated():
            taken = client.set(key, token, nx=True, px=LEASE_MS)
            if not taken and holder:
                former: Any = client.get(key) or b""
                if former.startswith(f"{holder}/".encode()):
                    state.server.call("lease", (key,), former, 0)
                    taken = client.set(key, token, nx=True, px=LEASE_MS)
        return cls(state, token) if taken else None

    def renew(self) -> bool:
        """Keep the lease for `LEASE_MS` from now; False if it ran out and is another's, or nobody's.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        self._renewed_s = monotonic_s()
        return bool(self._server.call("lease", (self._key,), self.token, LEASE_MS))

    def keep(self) -> bool:
        """Renew the lease if it is time to; called as often as one likes. False as `renew`.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        return monotonic_s() - self._renewed_s < _RENEW_S or self.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End the lease; a server that is away ends it by itself."""
        try:
            self._server.call("lease", (self._key,), self.token, 0)
        except DependencyUnreachable:
            return


def lease_key(state: FeatureState) -> str:
    """Return the key of the lease, the only one with an expiry."""
    return f"{state.tag}:lease:{state.feature_set.hash}"


def new_incarnation(feature_set: FeatureSet) -> str:
    """Return a name that no state of the set has had, and no state of another set can have."""
    return f"{feature_set.hash[:SHORT_HASH]}.{secrets.token_hex(3)}"


def pattern_of(prefix: str) -> str:
    """Return the pattern of all keys that begin with `prefix`."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in prefix) + "*"
