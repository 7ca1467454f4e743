"""What the scenario `outage` does on stage: kill a worker, then Redis, and measure the way back."""

import os
import signal
from collections.abc import Callable

from fraudstream.clients.clock import now_ms
from fraudstream.core.errors import SettingsError
from fraudstream.core.settings import Settings
from fraudstream.stack import embedded
from verify.demo.board import Board
from verify.demo.children import Children
from verify.demo.summary import Outage

Tell = Callable[[str], None]

PLAN = ((0.25, "worker"), (0.55, "Redis"), (0.8, "worker"))
"""When what is killed, as shares of the live transactions."""


def check_own_redis(settings: Settings) -> None:
    """Check that the Redis to be killed is the demo's.

    Raises:
        SettingsError: the settings name one of the user's.
    """
    if settings.redis_url:
        raise SettingsError(
            "--scenario outage kills Redis, and redis_url names a server of yours: leave the setting out"
        )


class Outages:
    """Kills by plan with SIGKILL, starts the worker anew, and notes when scores come again."""

    def __init__(self, settings: Settings, children: Children, board: Board, tell: Tell) -> None:
        self._settings = settings
        self._children = children
        self._board = board
        self._tell = tell
        self._plan = list(PLAN)
        self._open: tuple[str, float, int] | None = None
        self.done: list[Outage] = []

    def look(self, share_sent: float) -> None:
        """Kill what is due, or see whether what was killed last is back; `share_sent` 0 to 1."""
        if self._open is not None:
            self._see_back(*self._open)
        elif self._plan and share_sent >= self._plan[0][0]:
            _, victim = self._plan.pop(0)
            self._kill(victim)
            self._open = victim, self._board.elapsed_s, now_ms()

    def end(self) -> None:
        """Note what was not seen back, now that all results are read, and what was not done any more."""
        if self._open is not None:
            self._see_back(*self._open)
        if self._open is not None:
            victim, at_s, _ = self._open
            self.done.append(Outage(victim, round(at_s, 1), None))
            self._tell(f"the stream ended before a score came after the {victim} was killed")
            self._open = None
        for _, victim in self._plan:
            self._tell(f"the stream ended before the {victim} was to be killed")

    def _kill(self, victim: str) -> None:
        if victim == "worker":
            self._children.stop("scorer", signal.SIGKILL)
            self._children.start("scorer", "scorer")
            self._tell("SIGKILL to the worker in the middle of its work; another takes its place")
            return
        state = embedded.status(self._settings)
        if state is not None:
            os.kill(state.servers["redis"].pid, signal.SIGKILL)
            self._tell("SIGKILL to Redis; it is started anew, the worker waits for it")

    def _see_back(self, victim: str, at_s: float, killed_ms: int) -> None:
        observer = self._board.observer
        if observer is None or observer.watched.newest_sent_ms <= killed_ms:
            return
        seconds = round(self._board.elapsed_s - at_s, 1)
        self.done.append(Outage(victim, round(at_s, 1), seconds))
        self._tell(f"scores come again {seconds} s after the {victim} was killed")
        self._open = None
