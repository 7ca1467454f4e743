"""The servers' faults: killed, frozen, emptied. Each returns when the server answers again."""

import os
import signal

from redis import Redis

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack import embedded
from fraudstream.stack.locks import pause
from fraudstream.stack.servers import ANSWERS
from fraudstream.stack.state import Server, ServerName

POLL_S = 0.02
BACK_S = 90.0


def kill(settings: Settings, name: ServerName) -> None:
    """SIGKILL a server of the stack and wait until the one that its supervisor starts instead answers.

    Raises:
        FraudstreamError: it is not back within 90 s.
    """
    before = _server(settings, name)
    os.kill(before.pid, signal.SIGKILL)
    deadline = monotonic_s() + BACK_S
    while True:
        now = _server(settings, name)
        if now.restarts > before.restarts and now.ready:
            return
        if monotonic_s() > deadline:
            raise FraudstreamError(f"{name} is not back {BACK_S:.0f} s after it was killed")
        pause(POLL_S)


def freeze(settings: Settings, name: ServerName, seconds: float) -> None:
    """SIGSTOP a server for so long, and wait until it answers again.

    Raises:
        FraudstreamError: it does not answer within 90 s.
    """
    server = _server(settings, name)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        pause(seconds)  # the fault itself: nothing is waited for
    finally:
        os.kill(server.pid, signal.SIGCONT)
    deadline = monotonic_s() + BACK_S
    while not ANSWERS[name](server.port):
        if monotonic_s() > deadline:
            raise FraudstreamError(f"{name} does not answer {BACK_S:.0f} s after it was frozen")
        pause(POLL_S)


def empty_redis(settings: Settings) -> None:
    """FLUSHALL."""
    with Redis.from_url(settings.redis_url) as client:
        client.flushall()


def _server(settings: Settings, name: ServerName) -> Server:
    state = embedded.status(settings)
    if state is None:
        raise FraudstreamError(
            "the stack of the chaos run has ended: "
            + embedded.logs(settings, "supervisor", 3).replace("\n", " ")
        )
    return state.servers[name]
