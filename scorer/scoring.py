"""The hot path in a thread of its own: it begins before Faust is loaded, and ends whatever Faust is at."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.signals import ASK_TO_END, END_S, heard_enough, ignore_signals
from fraudstream.core.errors import FraudstreamError
from scorer.hot_path import HotPath

logger = logging.getLogger(__name__)

FAUST_END_S = 1.5
"""How long a worker that was asked to end, and whose hot path has ended, waits for Faust to end as well.

Faust has nothing that is lost; stopped while it starts, it may wait for its own client for seconds.
"""
UNASKED_END_S = 15.0
"""How long hot path and Faust may take to end once one of them has failed, which says why at the end."""


class Scoring:
    """A hot path that runs from `begin` until it is asked to end, and then calls `last`, or until it fails.

    `over`: done once that is so. Signals are heard from `begin` on, also before Faust hears them.
    """

    def __init__(self, hot_path: HotPath, last: Callable[[], None] = lambda: None) -> None:
        self.hot_path = hot_path
        self.over: Future[None] = Future()
        self.asked = False
        """Whether a signal has asked it to end, before anything had ended by itself."""
        self.beside: BaseException | None = None
        """What has failed beside the hot path: where that is held up, the guard tells it."""
        self._asked_s: float | None = None
        self._ended = False
        self._over_s: float | None = None
        self._last = last
        self._ending: SimpleQueue[None] = SimpleQueue()
        """To be put into by a signal at any moment, also while another puts something in."""

    def begin(self) -> None:
        """Hear SIGTERM and Ctrl-C, then start. To be called in the main thread."""
        self._hear()
        for name, run in (("end-guard", self._see_to_the_end), ("hot-path", self._run)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def ask(self) -> None:
        """Ask the hot path to end after its batch, and with it the process, in any case.

        To be called where a signal is heard: those after it change nothing.
        """
        heard_enough()
        self._asked_s = self._asked_s or monotonic_s()
        self.asked = self.asked or not self._ended
        self.end()

    def end(self) -> None:
        """Have the hot path end, since something beside it has; the process then ends in any case."""
        self._ended = True
        self._ending.put(None)

    def finish(self) -> None:
        """Have the hot path end and wait until it has; signals are heard as before Faust, then no more."""
        if not self.asked:
            self._hear()
        self.end()
        wait([self.over])
        ignore_signals()

    @property
    def ending(self) -> bool:
        """Whether there is nothing left to begin."""
        return self.asked or self.over.done()

    @property
    def failure(self) -> BaseException | None:
        """Return what ended the hot path, None if it was asked to end, or goes on."""
        return self.over.exception() if self.over.done() else None

    @property
    def exit_code(self) -> int:
        """Return the exit status that says what ended the hot path, or that something beside it has."""
        if isinstance(self.failure, FraudstreamError):
            return self.failure.exit_code
        return 0 if self.asked and self.failure is None else 1

    def _run(self) -> None:
        try:
            try:
                self.hot_path.run()
            finally:
                self.end()
                self.hot_path.leave()
            self._last()
        except BaseException as exc:  # noqa: BLE001 - raised again where the worker ends
            self.over.set_exception(exc)
        else:
            self._over_s = monotonic_s()
            self.over.set_result(None)
            self.end()  # from now on the guard has less patience

    def _hear(self) -> None:
        for each in ASK_TO_END:
            signal.signal(each, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.ask()

    def _see_to_the_end(self) -> None:
        """End the process once it has had its time.

        A batch may wait for a broker that is away. What is not committed by then, the next worker reads
        again: nothing is lost by not waiting.
        """
        self._ending.get()
        begun_s = monotonic_s()
        self.hot_path.stop()
        self.hot_path.under_way.set()
        while (left_s := self._until_s(begun_s) - monotonic_s()) > 0:
            with suppress(Empty):
                self._ending.get(timeout=left_s)
        if (why := self.failure or self.beside) is not None:
            logger.error("Crashed reason=%r", why)  # as Faust says it
        if self.exit_code == 0 and self.over.done() and self.beside is None:
            logger.info("the hot path has ended; Faust, which has not, is not waited for")
        else:
            who = "a server" if not self.over.done() or self.failure else "Faust"
            logger.warning("%s did not let this worker end in time; it ends all the same", who)
        os._exit(self.exit_code)

    def _until_s(self, begun_s: float) -> float:
        if self._asked_s is None:
            return begun_s + UNASKED_END_S
        until_s = self._asked_s + END_S
        if self._over_s is None:
            return until_s
        return min(until_s, max(self._asked_s, self._over_s) + FAUST_END_S)
