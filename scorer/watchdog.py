"""Ends a worker whose commit does not come back: librdkafka's own limits do not always hold.

After a broker was killed, `send_offsets_to_transaction` was seen not to return for minutes, whatever
limit it was given (docs/chaos.md). A worker that hangs there does not poll, so the next rebalance waits for
it and nobody scores. Its end is harmless at any point: the batch is read again.
"""

import logging
import os
import threading

logger = logging.getLogger(__name__)

MOST_S = 5.0
"""Longer than a step of a commit, or the abort after it, may take by its own limit."""
LOOKS = 20
"""It looks so often in that time, and counts looks: a process that was frozen meanwhile has not hung."""


class Watchdog:
    """Watches over one thread: what it does `with` the watchdog may take `MOST_S`."""

    def __init__(self, most_s: float = MOST_S) -> None:
        self._most_s = most_s
        self._steps = 0
        self._inside = False
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch in a thread of its own, until `stop` or the end of the process."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def __enter__(self) -> None:
        self._steps += 1
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False

    def _watch(self) -> None:
        step, seen = 0, 0
        while not self._stopped.wait(self._most_s / LOOKS):
            seen = seen + 1 if self._inside and self._steps == step else 0
            step = self._steps
            if seen >= LOOKS:
                logger.critical(
                    "a step of a commit has not come back for %.0f s: this worker ends at once, the batch "
                    "is read again; start it again",
                    self._most_s,
                )
                os._exit(1)
