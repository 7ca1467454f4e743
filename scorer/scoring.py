"""The hot path in a thread of its own: it begins before Faust is loaded, and ends whatever Faust is at."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import FrameType

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.signals import ASK_TO_END, END_S
from fraudstream.core.errors import FraudstreamError
from scorer.hot_path import HotPath

logger = logging.getLogger(__name__)

FAUST_END_S = 2.0
"""How long Faust may take to end behind the hot path; it takes one."""


class Scoring:
    """A hot path that runs from `begin` until it is asked to end, or fails; then `last` is called.

    `over`: done once that is so. A signal is heard from `begin` on, also before Faust hears it.
    """

    def __init__(self, hot_path: HotPath, last: Callable[[], None] = lambda: None) -> None:
        self.hot_path = hot_path
        self.over: Future[None] = Future()
        self._last = last
        self._thread = ThreadPoolExecutor(1, "hot-path")
        self._asked = threading.Event()

    def begin(self) -> None:
        """Start the thread, and hear SIGTERM and Ctrl-C. To be called in the main thread."""
        self.over = self._thread.submit(self._run)
        self.over.add_done_callback(lambda _: self.hot_path.under_way.set())
        threading.Thread(target=self._see_to_the_end, name="end-guard", daemon=True).start()
        for each in ASK_TO_END:
            signal.signal(each, self._heard)

    def end(self) -> None:
        """Ask the hot path to end after its batch, and see that the process ends in any case."""
        self.hot_path.stop()
        if not self._asked.is_set():
            self._asked.set()

    @property
    def failure(self) -> BaseException | None:
        """Return what ended the hot path, None if it was asked to end, or goes on."""
        return self.over.exception() if self.over.done() else None

    @property
    def exit_code(self) -> int:
        """Return the exit status that says what ended the hot path."""
        if isinstance(self.failure, FraudstreamError):
            return self.failure.exit_code
        return 0 if self.failure is None else 1

    def _run(self) -> None:
        self.hot_path.run()
        self._last()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.end()

    def _see_to_the_end(self) -> None:
        """End the process once it has had its time.

        A batch may wait for a broker that is away; what is not committed, the next worker reads again. Once
        the hot path has ended as asked nothing is left to lose, whatever Faust waits for.
        """
        self._asked.wait()
        until_s = monotonic_s() + END_S
        wait([self.over], END_S)
        left_s = max(until_s - monotonic_s(), 0.0)
        if self.over.done() and self.failure is None:
            threading.Event().wait(min(left_s, FAUST_END_S))
            logger.info("Faust has not ended in time and is not waited for: all is committed")
        else:
            threading.Event().wait(left_s)
            logger.warning(
                "a server did not let this worker end in %.1f s; it ends all the same", END_S
            )
        os._exit(self.exit_code)
