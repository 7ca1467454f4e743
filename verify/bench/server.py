"""A Redis-compatible server of the benchmark's own, and the CPU time that it has used."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from fraudstream.clients.clock import monotonic_s, process_cpu_s
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.stack.servers import valkey_binary

START_S = 20.0


@contextmanager
def own_server() -> Iterator[str]:
    """Start a server in a temporary folder, append-only file on; yield its URL; end it.

    Raises:
        DependencyUnreachable: it did not answer within 20 s.
    """
    folder = tempfile.mkdtemp(prefix="fraudstream-bench-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [valkey_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
    command += ["--appendonly", "yes", "--save", "", "--logfile", "server.log"]
    command += ["--auto-aof-rewrite-min-size", "4gb"]
    child = subprocess.Popen(command)  # noqa: S603
    client = Redis(port=port)
    try:
        deadline = monotonic_s() + START_S
        while not _answers(client):
            if monotonic_s() > deadline:
                raise DependencyUnreachable(
                    f"the benchmark's server on port {port} did not start in {START_S:g} s"
                )
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        client.close()
        child.terminate()
        child.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


class Meter:
    """CPU of the server's main thread and of this process since the start, in microseconds."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._server, self._own = self._server_s(), process_cpu_s()

    def _server_s(self) -> float:
        info: Any = self._client.info("cpu")
        return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def read(self, n: int) -> tuple[float, float]:
        """Return (server, client) microseconds a transaction, over n transactions."""
        own = process_cpu_s() - self._own
        return round((self._server_s() - self._server) / n * 1e6, 2), round(own / n * 1e6, 2)
