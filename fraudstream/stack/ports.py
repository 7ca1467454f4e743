"""Ports of the embedded servers: the chosen one, else that of the earlier run, else a free one."""

import random
import socket
from collections.abc import Iterable

import msgspec

from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.settings import Settings
from fraudstream.stack.state import StackPaths, write_atomically

HOST = "127.0.0.1"
RANGE = range(20_000, 32_000)
"""Below the ports that Linux and macOS give to outgoing connections."""
CHOOSABLE = {"kafka": "kafka_port", "redis": "redis_port", "mlflow": "mlflow_port"}
TRIES = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(settings: Settings, paths: StackPaths, names: Iterable[str]) -> dict[str, int]:
    """Return a port for each name and remember them in the state folder.

    Raises:
        SettingsError: the port of a setting is taken; names port and setting.
    """
    earlier = _earlier(paths)
    chosen: dict[str, int] = {}
    for name in names:
        wanted = int(getattr(settings, CHOOSABLE[name])) if name in CHOOSABLE else 0
        if wanted and not is_free(wanted):
            raise SettingsError(
                f"setting {CHOOSABLE[name]} = {wanted}: port {wanted} is taken by another process; free it, "
                f"or choose another with FRAUDSTREAM_{CHOOSABLE[name].upper()} (0 = any free one)"
            )
        chosen[name] = wanted or _any_free(earlier.get(name, 0), set(chosen.values()))
    write_atomically(paths.ports, earlier | chosen)
    return chosen


def _any_free(preferred: int, taken: set[int]) -> int:
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    for port in random.sample(RANGE, TRIES):
        if port not in taken and is_free(port):
            return port
    raise FraudstreamError(f"no free port between {RANGE.start} and {RANGE.stop} on {HOST}")


def _earlier(paths: StackPaths) -> dict[str, int]:
    try:
        return msgspec.json.decode(paths.ports.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}
