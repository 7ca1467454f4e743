"""What ends a demo from outside its main flow: signals, a terminal that is gone, a thread that failed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from fraudstream.core.errors import Ended

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAKE = signal.SIGTERM
"""The signal by which another thread interrupts the main one, also while that waits for something."""


class Alarm:
    """Raises in the main thread, for the length of a `with` block, what ends the demo: the first, once.

    Later signals cannot disturb the cleaning up, but for Ctrl-C, which stays in the user's hands. A
    signal that was ignored before the block (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident or 0
        self._lock = threading.Lock()
        self._before: dict[signal.Signals, object] = {}
        self._raised = False
        self._held: list[int] | None = None
        self.error: BaseException | None = None
        """What a thread has sounded; it is, or will be, raised in the main thread."""

    def __enter__(self) -> "Alarm":
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._raised = True
        with self._lock:  # A thread that is sounding has done so before the handlers change.
            before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def sound(self, error: BaseException) -> None:
        """Have `error` raised in the main thread, at once; called by any other thread."""
        with self._lock:
            if self.error is None and not self._raised:
                self.error = error
                if _WAKE in self._before:
                    signal.pthread_kill(self._main, _WAKE)

    def check(self) -> None:
        """Raise what a thread has sounded, if the main thread has not met it yet."""
        if self.error is not None and not self._raised:
            self._raised = True
            raise self.error

    def silence(self) -> None:
        """Raise nothing any more: the main thread has met by itself what ends the demo."""
        self._raised = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put off what ends the demo, Ctrl-C included, to the end of a block that must be whole."""
        held: list[int] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            for number in held:
                self._caught(number, None)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._held is not None:
            self._held.append(number)
            return
        if self._raised and number != signal.SIGINT:
            return
        self._raised = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.error is not None:
            raise self.error
        raise Ended(f"ended by {signal.Signals(number).name}", number)
