"""One connection to the server of the features: fit to hold them, library loaded, errors translated."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_errors import translate
from fraudstream.clients.feature_library import Library
from fraudstream.core.errors import Refused, SettingsError

logger = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a server that reads its data from disk is asked whether it is done."""
_pause = threading.Event()


class Evicting(Refused):
    """The server takes keys away when its memory is full; `evicted` so many since it began."""

    def __init__(self, message: str, *, evicted: int) -> None:
        super().__init__(message)
        self.evicted = evicted


class FeatureServer:
    """A Redis or Valkey server with the function library loaded. Not thread-safe."""

    def __init__(self, client: Redis, address: str, library: Library) -> None:
        """Wrap a client; use `connect`, which also checks the server."""
        self.client = client
        self.address = address
        self.library = library
        self.calls = 0
        self.memory_bytes = 0
        """In use by the server when it last told."""

    @classmethod
    def connect(
        cls, redis_url: str, library: Library, *, connect_timeout_ms: int, request_timeout_ms: int
    ) -> Self:
        """Connect, check the server and load the function library.

        A server that reads its data from disk is waited for, at most `connect_timeout_ms`.

        Raises:
            DependencyUnreachable: the server does not answer; names the address.
            Refused: the server may lose data, or cannot write.
            SettingsError: `redis_url` is no URL of a Redis server.
        """
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
        server = cls(client, _address(redis_url), library)
        with server.translated():
            server._let_it_load(connect_timeout_ms / 1000)
            server._check()
            server._load_library()
        return server

    def call(
        self,
        function: str,
        keys: tuple[str, ...],
        *arguments: str | bytes | int,
        topic_id: str = "",
    ) -> object:
        """Call a function of the library, loading it again if the server lost it.

        Raises:
            FraudstreamError: as `feature_errors` says.
        """
        name = f"{function}_{self.library.id}"
        self.calls += 1
        with self.translated(topic_id):
            try:
                return self.client.fcall(name, len(keys), *keys, *arguments)
            except exceptions.ResponseError as exc:
                if "Function not found" not in str(exc):
                    raise
            logger.warning("the server at %s lost the function library: loading it", self.address)
            self._load_library()
            return self.client.fcall(name, len(keys), *keys, *arguments)

    @contextmanager
    def translated(self, topic_id: str = "") -> Iterator[None]:
        """Turn the client's errors into those of the product.

        Raises:
            FraudstreamError: as `feature_errors` says.
        """
        try:
            yield
        except exceptions.RedisError as exc:
            translate(exc, self.address, topic_id)

    def check_again(self) -> None:
        """Check a server that was fit at connect: it may have other settings since.

        Raises:
            DependencyUnreachable: the server does not answer.
            Evicting: it evicts keys.
        """
        with self.translated():
            info: Any = self.client.info("memory", "stats")
        self._refuse_eviction(info)
        self.memory_bytes = int(info["used_memory"])

    def run_id(self) -> str:
        """Return what names the server's process: another one may have lost the last records.

        Raises:
            DependencyUnreachable: the server does not answer.
        """
        with self.translated():
            info: Any = self.client.info("server")
        return str(info["run_id"])

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _let_it_load(self, timeout_s: float) -> None:
        deadline_s = monotonic_s() + timeout_s
        while True:
            try:
                self.client.ping()
            except exceptions.BusyLoadingError:
                if monotonic_s() > deadline_s:
                    raise
                _pause.wait(LOOK_S)
            else:
                return

    def _check(self) -> None:
        """Refuse a server that would lose or not take the state.

        Raises:
            Refused: what is wrong with the server and what to do.
        """
        info: Any = self.client.info()
        self.memory_bytes = int(info.get("used_memory", 0))
        version = str(info.get("redis_version", "0"))
        if int(version.partition(".")[0]) < 7:
            raise Refused(
                f"the server at {self.address} is Redis {version}, which has no functions: "
                "use Redis 7 or Valkey 7.2, or newer"
            )
        if info.get("role") != "master":
            raise Refused(
                f"the server at {self.address} is a read-only replica: set redis_url to its primary"
            )
        self._refuse_eviction(info)
        if not info.get("aof_enabled"):
            logger.warning(
                "the server at %s keeps no append-only file: after its restart the features must be "
                "rebuilt from the log; set appendonly yes",
                self.address,
            )

    def _refuse_eviction(self, info: Mapping[str, object]) -> None:
        """Refuse a server that would lose features silently.

        Raises:
            Evicting: it evicts keys that have no expiry.
        """
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):
            raise Evicting(
                f"the server at {self.address} evicts keys under maxmemory-policy {policy}, which would "
                "lose features silently: set maxmemory-policy to noeviction",
                evicted=int(str(info.get("evicted_keys", 0))),
            )

    def _load_library(self) -> None:
        if not self.client.function_list(library=self.library.name):
            self.client.function_load(self.library.text, replace=True)


def _address(redis_url: str) -> str:
    """Return host, port and database of a URL, without user and password."""
    parts = urlsplit(redis_url)
    if not parts.hostname:
        return parts.path or redis_url
    return f"{parts.hostname}:{parts.port or 6379}{parts.path.rstrip('/')}"
