"""The feature store: exact features as a fold of the log, kept in Redis or Valkey, one call a batch."""

import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import msgspec
from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.clients.feature_library import (
    Applied,
    Library,
    Slice,
    apply_blob,
    build_library,
    label_blob,
    read_replies,
)
from fraudstream.core.errors import (
    DependencyUnreachable,
    FraudstreamError,
    Refused,
    SettingsError,
)
from fraudstream.core.feature_set import NINE, FeatureSet
from fraudstream.core.transaction import Feedback

__all__ = ["Applied", "Behind", "FeatureStore", "ReplyGone", "Slice", "StateReplaced"]

STATE_VERSION = 2
_BUCKET = 0

logger = logging.getLogger(__name__)


class Behind(FraudstreamError):
    """The state lags behind the log: `partition` of topic `topic_id` was applied up to offset `mark` only.

    Nothing of the call was applied. -1: no record of the partition was ever applied.
    """

    def __init__(self, topic_id: str, partition: int, mark: int) -> None:
        super().__init__(
            f"the feature state of partition {partition} of topic {topic_id} ends at offset {mark}, "
            "before the batch begins: apply the records after that offset first"
        )
        self.topic_id = topic_id
        self.partition = partition
        self.mark = mark


class ReplyGone(FraudstreamError):
    """A record at or below the committed offset was brought again; its reply is no longer kept."""


class StateReplaced(FraudstreamError):
    """The server holds another state than at connect (flushed or restored in between)."""


class _Meta(msgspec.Struct):
    """What the state is: written once, compared at every call."""

    state_version: int
    feature_set: str
    incarnation: str


class FeatureStore:
    """One connection to the feature state of one environment. Not thread-safe."""

    def __init__(self, client: Redis, address: str, environment: str, library: Library) -> None:
        """Wrap a client; use `connect`, which also checks the server."""
        self._client = client
        self._address = address
        self._tag = f"{{{environment}:b{_BUCKET}}}"
        self._library = library
        self._meta = ""

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
        address = _address(redis_url)
        try:
            client = Redis.from_url(
                redis_url,
                socket_connect_timeout=connect_timeout_ms / 1000,
                socket_timeout=request_timeout_ms / 1000,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as exc:
            raise SettingsError(
                f"setting redis_url: {exc}; give it as redis://host:port/0"
            ) from exc
        store = cls(client, address, environment, build_library(feature_set))
        with store._translated():
            store._check_server()
            store._load_library()
            store._adopt_state(feature_set)
        return store

    def bind(self, topics: Mapping[str, str]) -> None:
        """Tie the state to the topics that it is a fold of: ids by name, `{"transactions": "..."}`.

        Raises:
            Refused: the state was folded from another topic of that name.
            DependencyUnreachable: the server does not answer.
        """
        for name, topic_id in topics.items():
            key = f"{self._prefix}topic:{name}"
            with self._translated():
                self._client.set(key, topic_id, nx=True)
                bound: Any = self._client.get(key)
            if bound.decode() != topic_id:
                raise Refused(
                    f"topic {name} was made anew (id {topic_id}): the features at {self._address} are "
                    f"those of the one before it (id {bound.decode()})"
                )

    def marks(self, topic_id: str, partitions: Sequence[int]) -> dict[int, int]:
        """Return the last applied offset of each partition, -1 for none.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        if not partitions:
            return {}
        keys = [f"{self._prefix}m:{topic_id}:{partition}" for partition in partitions]
        with self._translated():
            values: Any = self._client.mget(keys)
        return {
            partition: -1 if value is None else int(value)
            for partition, value in zip(partitions, values, strict=True)
        }

    def apply(self, topic_id: str, slices: Sequence[Slice]) -> Applied:
        """Apply a batch, each partition at most once in it; records applied before get their stored reply.

        All or nothing, and safe to repeat after any error.

        Raises:
            Behind: a slice begins after the mark of its partition.
            ReplyGone: a record was brought again after it was committed.
            StateReplaced: the state is another than at connect.
            DependencyUnreachable: the server does not answer, or refuses to write for now.
        """
        if not slices:
            return read_replies(self._library, b"", [], [])
        blob = apply_blob(self._library, self._meta, topic_id, slices)
        reply: Any = self._call("apply", topic_id, blob)
        return read_replies(self._library, reply[0], reply[1:], slices)

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
            Behind: the labels begin after the mark.
            StateReplaced: the state is another than at connect.
            DependencyUnreachable: the server does not answer, or refuses to write for now.
        """
        positions = (previous_offset, last_offset, offsets)
        new: Any = self._call(
            "label", topic_id, label_blob(self._meta, topic_id, positions, labels)
        )
        return int(new)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def _prefix(self) -> str:
        return f"{self._tag}:v{STATE_VERSION}:"

    @property
    def _meta_key(self) -> str:
        return f"{self._tag}:meta"

    def _call(self, function: str, topic_id: str, blob: bytes) -> object:
        """Call a function of the library, loading it again if the server lost it."""
        name = f"{function}_{self._library.id}"
        keys = (self._prefix, self._meta_key)
        with self._translated(topic_id):
            try:
                return self._client.fcall(name, 2, *keys, blob)
            except exceptions.ResponseError as exc:
                if "Function not found" not in str(exc):
                    raise
            logger.warning("the server at %s lost the function library: loading it", self._address)
            self._load_library()
            return self._client.fcall(name, 2, *keys, blob)

    def _check_server(self) -> None:
        """Refuse a server that would lose or not take the state.

        Raises:
            Refused: what is wrong with the server and what to do.
        """
        info: Any = self._client.info()
        version = str(info.get("redis_version", "0"))
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if int(version.partition(".")[0]) < 7:
            raise Refused(
                f"the server at {self._address} is Redis {version}, which has no functions: "
                "use Redis 7 or Valkey 7.2, or newer"
            )
        if info.get("role") != "master":
            raise Refused(
                f"the server at {self._address} is a read-only replica: set redis_url to its primary"
            )
        if policy.startswith("allkeys"):
            raise Refused(
                f"the server at {self._address} evicts keys under maxmemory-policy {policy}, which would "
                "lose features silently: set maxmemory-policy to noeviction"
            )
        if not info.get("aof_enabled"):
            logger.warning(
                "the server at %s keeps no append-only file: after its restart the features must be "
                "rebuilt from the log; set appendonly yes",
                self._address,
            )

    def _load_library(self) -> None:
        if not self._client.function_list(library=self._library.name):
            self._client.function_load(self._library.text, replace=True)

    def _adopt_state(self, feature_set: FeatureSet) -> None:
        """Begin the state of this environment if there is none; refuse one that is not this one's.

        Raises:
            Refused: the state is of another version or of another feature set.
        """
        key = self._meta_key
        fresh = _Meta(STATE_VERSION, feature_set.hash, secrets.token_hex(8))
        self._client.set(key, msgspec.json.encode(fresh), nx=True)
        raw: Any = self._client.get(key)
        try:
            meta = msgspec.json.decode(raw, type=_Meta)
        except msgspec.DecodeError as exc:
            raise Refused(f"key {key} at {self._address} is no feature state: {exc}") from exc
        how = (
            "set FRAUDSTREAM_ENVIRONMENT to a new name, whose state is filled from the log, or delete "
            f"the keys {self._tag}*"
        )
        if meta.state_version > STATE_VERSION:
            raise Refused(
                f"the feature state at {self._address} is of version {meta.state_version}, this program "
                f"knows up to {STATE_VERSION}: update fraudstream, or {how}"
            )
        if meta.feature_set != feature_set.hash or meta.state_version < STATE_VERSION:
            raise Refused(
                f"the feature state at {self._address} is of feature set {meta.feature_set} (version "
                f"{meta.state_version}), this program computes {feature_set.hash} (version "
                f"{STATE_VERSION}): {how}"
            )
        self._meta = raw.decode()

    @contextmanager
    def _translated(self, topic_id: str = "") -> Iterator[None]:
        """Turn the client's errors into those of the product.

        Raises:
            FraudstreamError: as `apply` says.
        """
        try:
            yield
        except exceptions.AuthenticationError as exc:
            raise Refused(
                f"Redis at {self._address} refused the login: check user and password in redis_url"
            ) from exc
        except (exceptions.ConnectionError, exceptions.TimeoutError) as exc:
            raise DependencyUnreachable(
                f"Redis at {self._address} does not answer ({_reason(exc)}): is it running? Try "
                "`fraudstream stack status`, or check redis_url"
            ) from exc
        except exceptions.ResponseError as exc:
            self._raise_answer(exc, topic_id)

    def _raise_answer(self, exc: exceptions.ResponseError, topic_id: str) -> NoReturn:
        """Translate an error answer of the server."""
        text = str(exc)
        found = re.match(r"(BEHIND|GONE) (\d+) (-?\d+)$", text)
        if found and found[1] == "BEHIND":
            raise Behind(topic_id, int(found[2]), int(found[3])) from exc
        if found:
            raise ReplyGone(
                f"the features of offset {found[3]} in partition {found[2]} of topic {topic_id} were "
                "applied and committed before and their reply is no longer kept: start again from the "
                "committed offset"
            ) from exc
        if text.startswith("REPLACED"):
            raise StateReplaced(
                f"Redis at {self._address} holds another feature state than at connect: stop scoring, "
                "compare its marks with the committed offsets, then connect again"
            ) from exc
        if isinstance(exc, (exceptions.OutOfMemoryError, exceptions.ReadOnlyError)) or re.match(
            r"(MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY)", text
        ):
            raise DependencyUnreachable(
                f"Redis at {self._address} refuses to write for now: {text}; free its memory or disk, "
                "or check its role, then go on"
            ) from exc
        raise FraudstreamError(f"Redis at {self._address} answered: {text}") from exc


def _address(redis_url: str) -> str:
    """Return host, port and database of a URL, without user and password."""
    parts = urlsplit(redis_url)
    if not parts.hostname:
        return parts.path or redis_url
    return f"{parts.hostname}:{parts.port or 6379}{parts.path.rstrip('/')}"


def _reason(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__
