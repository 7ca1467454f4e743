"""Shows the running demo: a live view on a terminal, plain lines anywhere else."""

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.console import Console

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import Ended, FraudstreamError
from verify.demo import view
from verify.demo.alarm import Alarm
from verify.demo.layout import printable
from verify.demo.state import Picture
from verify.demo.terminal import GONE, Terminal, is_gone, lead_nowhere

__all__ = ["PictureSource", "Screen", "open_screen"]

PictureSource = Callable[[], Picture]
JOIN_S = 2.0
LOOK_S = 0.5
"""So often plain output looks whether its reader is still there."""


class Screen(Protocol):
    """Where the demo speaks; called by the main thread alone."""

    def tell(self, line: str) -> None:
        """Say a line of the story: plain output shows it now, a live view has it in its next picture.

        Raises:
            Ended: nobody can read it any more.
        """

    def leave(self) -> None:
        """End the live view; its last picture stays, and what is told from now on follows as lines.

        What prints to the terminal itself, as a table at the end, comes after this call. A second call
        does nothing. Plain output goes on, without status lines.
        """


@contextmanager
def open_screen(
    console: Console,
    picture_source: PictureSource,
    *,
    started_s: float | None = None,
    refresh_s: float = 0.5,
    status_s: float = 10.0,
) -> Iterator[Screen]:
    """Show pictures for the length of the block: live on a terminal that can, else a line now and then.

    `picture_source` is asked by a thread of the screen's own, every `refresh_s` or, where there is no
    terminal, `status_s` seconds. `started_s` (monotonic; None: now) is where the times of lines begin.
    However the block ends, the terminal is as it was. Only the main thread may open a screen.

    Raises:
        Ended: SIGTERM, SIGHUP, or the terminal or the reader of a pipe is gone. It is a KeyboardInterrupt.
        BaseException: whatever `picture_source` raised in the thread, in the midst of the block.
    """
    started_s = monotonic_s() if started_s is None else started_s
    with Alarm() as alarm:
        lines = _Plain(console, alarm, started_s)
        screen: _Live | _Status
        if _can_show_pictures(console):
            screen = _Live(console, picture_source, lines=lines, alarm=alarm, refresh_s=refresh_s)
        else:
            screen = _Status(picture_source, lines=lines, alarm=alarm, status_s=status_s)
        try:
            screen.begin()
            yield screen
            screen.leave()
        finally:
            screen.abandon()
        alarm.check()


def _can_show_pictures(console: Console) -> bool:
    fd = _descriptor(console)
    return console.is_interactive and fd >= 0 and os.isatty(fd) and _is_in_front(fd)


def _is_in_front(fd: int) -> bool:
    """Tell whether the terminal is ours to paint on: not while this runs in the background of a shell."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody else's shell is there
        return True


def _descriptor(console: Console) -> int:
    """Return the descriptor of the console's file, -1 if it has none."""
    try:
        return console.file.fileno()
    except OSError:
        return -1


class _Ticker(threading.Thread):
    """Calls `tick` at once and every `period_s` until it is stopped; what it raises, the alarm tells."""

    def __init__(self, tick: Callable[[], None], period_s: float, alarm: Alarm) -> None:
        super().__init__(daemon=True, name="screen")
        self._tick = tick
        self._period_s = period_s
        self._alarm = alarm
        self._stopping = threading.Event()

    def run(self) -> None:
        """Tick."""
        try:
            self._tick()
            while not self._stopping.wait(self._period_s):
                self._tick()
        except BaseException as exc:  # noqa: BLE001 - it is raised again, in the main thread
            self._alarm.sound(exc)

    def stop(self) -> None:
        """Have no tick begin after this call, and none go on if it ends in time."""
        self._stopping.set()
        if self.is_alive():
            self.join(JOIN_S)


class _Plain:
    """Lines with the seconds since the beginning, written at once by any thread."""

    def __init__(self, console: Console, alarm: Alarm, started_s: float) -> None:
        self._file = console.file
        self._fd = _descriptor(console)
        self._alarm = alarm
        self._started_s = started_s
        self._lock = threading.RLock()

    def write(self, line: str) -> None:
        """Write one line.

        Raises:
            Ended: nobody reads it.
        """
        text = f"{monotonic_s() - self._started_s:6.1f} s  {printable(line)}\n"
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        try:
            with self._lock:
                self._file.write(text.encode(encoding, "replace").decode(encoding))
                self._file.flush()
        except OSError as exc:
            if exc.errno not in GONE:
                raise FraudstreamError(f"the output cannot be written ({exc.strerror})") from exc
            lead_nowhere()
            raise self._ended() from exc

    def tell(self, line: str) -> None:
        """Write one line, in the main thread.

        Raises:
            Ended: nobody reads it.
        """
        try:
            self.write(line)
        except Ended:
            self._alarm.silence()
            raise

    def check_reader(self) -> None:
        """Look whether anybody can read.

        Raises:
            Ended: nobody can.
        """
        if self._fd >= 0 and is_gone(self._fd):
            lead_nowhere()
            raise self._ended()

    def _ended(self) -> Ended:
        if self._fd >= 0 and self._file.isatty():
            return Ended("the terminal is gone", signal.SIGHUP)
        return Ended("the reader of the output is gone", signal.SIGPIPE)


class _Status:
    """Plain output: what is told, and now and then a line of where everything stands."""

    def __init__(
        self, picture_source: PictureSource, *, lines: _Plain, alarm: Alarm, status_s: float
    ) -> None:
        self._source = picture_source
        self._lines = lines
        self._alarm = alarm
        self._status_s = status_s
        self._next_s = monotonic_s() + status_s
        self._ticker = _Ticker(self._tick, min(LOOK_S, status_s), alarm)

    def begin(self) -> None:
        self._ticker.start()

    def tell(self, line: str) -> None:
        self._alarm.check()
        self._lines.tell(line)

    def leave(self) -> None:
        self._ticker.stop()

    def abandon(self) -> None:
        self._ticker.stop()

    def _tick(self) -> None:
        self._lines.check_reader()
        if monotonic_s() >= self._next_s:
            self._next_s += self._status_s
            self._lines.write(view.status_line(self._source()))


class _Live:
    """The live view on a terminal; as lines once it was left."""

    def __init__(
        self,
        console: Console,
        picture_source: PictureSource,
        *,
        lines: _Plain,
        alarm: Alarm,
        refresh_s: float,
    ) -> None:
        self._source = picture_source
        self._lines = lines
        self._alarm = alarm
        self._console = _of_the_same_kind(console)
        self._terminal = Terminal(_descriptor(console))
        self._painting = threading.RLock()
        self._picture: Picture | None = None
        self._handles_stop = signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
        self._ticker = _Ticker(self._tick, refresh_s, alarm)

    def begin(self) -> None:
        if self._handles_stop:
            signal.signal(signal.SIGTSTP, self._stopped)
        self._terminal.begin()
        self._ticker.start()

    def tell(self, line: str) -> None:
        self._alarm.check()
        if not self._terminal.is_on:
            self._lines.tell(line)

    def leave(self) -> None:
        if self._terminal.is_on:
            with self._alarm.held():
                self._ticker.stop()
                try:
                    if self._alarm.error is None:
                        self._picture = self._source()
                finally:
                    self._give_back()

    def abandon(self) -> None:
        if self._terminal.is_on:
            with self._alarm.held():
                self._ticker.stop()
                self._give_back()

    def _tick(self) -> None:
        picture = self._source()
        with self._painting:
            if self._terminal.is_on:
                size = self._terminal.size
                self._terminal.paint(self._drawn(picture, size).split("\n")[:-1], size)
        self._picture = picture

    def _drawn(self, picture: Picture, size: tuple[int, int]) -> str:
        self._console.size = size
        with self._console.capture() as drawn:
            self._console.print(view.render(picture, *size), end="", crop=False)
        return drawn.get()

    def _give_back(self) -> None:
        last = ""
        with self._painting:
            try:
                columns, lines = self._terminal.size
                last = self._drawn(self._picture, (columns, lines - 2)) if self._picture else ""
            finally:
                self._terminal.end(last)
        if self._handles_stop:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _stopped(self, number: int, frame: FrameType | None) -> None:
        """Stop (Ctrl-Z) with the terminal as it was, and show the view again afterwards."""
        del number, frame
        with self._painting:
            was_on = self._terminal.is_on
            if was_on:
                self._terminal.pause()
            os.kill(os.getpid(), signal.SIGSTOP)
            if was_on:
                self._terminal.resume()


def _of_the_same_kind(console: Console) -> Console:
    """Return a console that draws as `console` would, for what is captured and never written."""
    return Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding=console.encoding),
        force_terminal=True,
        color_system=console.color_system,  # type: ignore[arg-type]
        no_color=console.no_color,
        legacy_windows=False,
        highlight=False,
    )
