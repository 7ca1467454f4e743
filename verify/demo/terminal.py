"""A terminal as the screen of the demo alone: the alternate screen, given back as it was."""

import atexit
import errno
import os
import select
import signal
import sys
import tempfile
import termios
from typing import BinaryIO

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import Ended

BEGIN = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H"
END = "\x1b[0m\x1b[?1049l\x1b[?25h"
"""Alternate screen on, cursor hidden, all cleared; and back."""
HOME, CLEAR, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
PAINT_S = 0.3
"""A picture that the terminal does not take in so long is dropped: the next one is newer."""
LAST_WORDS_S = 1.0
CAPTURED_BYTES = 32_768
GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ENODEV)
"""How the operating system says that nobody is at the other end."""


class Terminal:
    """Shows whole pictures on a terminal, by its descriptor `fd`; never blocks longer than it says.

    While it is on, what anything else in this process and its children writes to standard output and
    error, where these are terminals, goes into a file, and is shown when the screen is given back.
    """

    def __init__(self, fd: int) -> None:
        self._fd = _opened_anew(fd)
        self._captured: BinaryIO | None = None
        self._instead: dict[int, int] = {}
        self._size: tuple[int, int] | None = None
        self.is_on = False

    @property
    def size(self) -> tuple[int, int]:
        """Return columns and lines as they are now; 80 by 24 if the terminal does not say."""
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return columns or 80, lines or 24

    def begin(self) -> None:
        """Take the screen."""
        atexit.register(self.end, "")
        self.is_on = True
        self._capture()
        self._write(BEGIN, PAINT_S)

    def paint(self, lines: list[str], size: tuple[int, int]) -> None:
        """Show `lines`, as many as fit; `size` in columns and lines is what they were made for.

        Raises:
            Ended: the terminal is gone.
        """
        clear = CLEAR if size != self._size else ""
        self._size = size
        # Cleared before it is written: after a full line the cursor still stands on its last column.
        text = "\r\n".join(f"{CLEAR_LINE}{line}" for line in lines)
        rest = f"\r\n{CLEAR_BELOW}" if len(lines) < size[1] else ""
        self._write(f"{clear}{HOME}{text}{rest}{HOME}", PAINT_S)

    def pause(self) -> None:
        """Give the screen back for as long as the process is stopped (Ctrl-Z)."""
        self._write(END, LAST_WORDS_S)

    def resume(self) -> None:
        """Take the screen again."""
        self._size = None
        self._write(BEGIN, PAINT_S)

    def end(self, last_words: str) -> None:
        """Give the screen back; then write `last_words` and what was captured. A second call does nothing.

        If the terminal is gone or takes nothing, standard output and error lead nowhere from then on.

        Raises:
            Ended: the terminal is gone.
        """
        if not self.is_on:
            return
        self.is_on = False
        atexit.unregister(self.end)
        said = self._released()
        try:
            taken = self._write(END, LAST_WORDS_S)
            if not taken:
                _go_on(self._fd)
                taken = self._write(END, LAST_WORDS_S)
            words = (last_words + said).replace("\n", "\r\n")
            if not (taken and self._write(words, LAST_WORDS_S, for_each_part=True)):
                lead_nowhere(terminals=True)
        finally:
            os.close(self._fd)

    def _write(self, text: str, seconds: float, *, for_each_part: bool = False) -> bool:
        """Return whether the terminal took all of it in time, be it slowly if `for_each_part`."""
        data = text.encode("utf-8", "replace")
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        deadline = monotonic_s() + seconds
        while data:
            if not poll.poll(max(deadline - monotonic_s(), 0) * 1_000):
                return False
            try:
                data = data[os.write(self._fd, data) :]
                deadline = monotonic_s() + seconds if for_each_part else deadline
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno not in GONE:
                    raise
                lead_nowhere()
                raise Ended("the terminal is gone", signal.SIGHUP) from exc
        return True

    def _capture(self) -> None:
        self._captured = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _released
        for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
            if os.isatty(fd):
                stream.flush()
                self._instead[fd] = os.dup(fd)
                os.dup2(self._captured.fileno(), fd)

    def _released(self) -> str:
        """Return the end of what was captured; standard output and error are the terminal again."""
        sys.stdout.flush()
        sys.stderr.flush()
        while self._instead:
            fd, before = self._instead.popitem()
            os.dup2(before, fd)
            os.close(before)
        if self._captured is None:
            return ""
        with self._captured as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - CAPTURED_BYTES, 0))
            return file.read().decode(errors="replace")


def is_gone(fd: int) -> bool:
    """Return whether nobody can read any more what is written to a pipe or terminal."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def lead_nowhere(*, terminals: bool = False) -> None:
    """Have standard output and error lead nowhere if nobody reads them, so that no later word fails.

    With `terminals` also those that are terminals: one that takes nothing would hold up the end.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        if is_gone(fd) or (terminals and os.isatty(fd)):
            os.dup2(nowhere, fd)
    os.close(nowhere)


def _opened_anew(fd: int) -> int:
    """Return a descriptor of the same terminal that does not block, whatever others set on theirs."""
    try:
        return os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # A container may not see the name of its terminal.
        return os.dup(fd)


def _go_on(fd: int) -> None:
    """Undo Ctrl-S, or the screen could not be given back."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # It would stop a job in the background.
    try:
        termios.tcflow(fd, termios.TCOOFF)
        termios.tcflow(fd, termios.TCOON)
    finally:
        signal.signal(signal.SIGTTOU, before)
