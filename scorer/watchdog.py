"""Ends a worker whose commit does not come back: librdkafka's own limits do not always hold.

After a broker was killed, `send_offsets_to_transaction` was seen not to return for minutes, ten seconds
being its limit (docs/chaos.md). A worker that hangs there does not poll, so the next rebalance waits for it
and nobody scores. Its end is harmless at any point: the batch is read again.
"""

import logging
import os
import threading

from fraudstream.clients.clock import monotonic_s

logger = logging.getLogger(__name__)

MOST_S = 15.0
"""Longer than a step of a commit, or the abort after it, may take by its own limit."""
LOOK_S = 1.0


class Watchdog:
    """Watches over one thread: what it does `with` the watchdog may take `MOST_S`."""

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._begun_s: float | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch in a thread of its own, until `stop` or the end of the process."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def __enter__(self) -> None:
        self._begun_s = monotonic_s()

    def __exit__(self, *_: object) -> None:
        self._begun_s = None

    def _watch(self) -> None:
        while not self._stopped.wait(min(LOOK_S, self._most_s)):
            begun_s = self._begun_s
            if begun_s is not None and monotonic_s() - begun_s > self._most_s:
                logger.critical(
                    "a step of a commit has not come back for %.0f s: this worker ends at once, the batch "
                    "is read again; start it again",
                    self._most_s,
                )
                os._exit(1)
