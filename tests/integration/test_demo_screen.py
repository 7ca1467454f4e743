"""The demo's screen on real terminals and pipes: it moves, and however it ends, all is as it was before."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.moving_screen import CLEANED_UP
from tests.processes import wait_until
from verify.demo.terminal import BEGIN, END

SHOWN, HIDDEN, HOME = "\x1b[?25h", "\x1b[?25l", "\x1b[H"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENDS_WITHIN_S = 20.0


class OnTerminal:
    """A process on a pseudo-terminal of its own, and everything that it has shown."""

    def __init__(self, *arguments: str, controlling: bool = True, **environment: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(100, 30)
        self.modes = termios.tcgetattr(self.theirs)
        name = os.ttyname(self.theirs)
        # A session leader without a terminal gets the one that it opens first.
        script = f'exec "$@" <{name} >{name} 2>&1' if controlling else 'exec "$@"'
        self.process = subprocess.Popen(
            ("sh", "-c", script, "sh", sys.executable, "-m", "tests.moving_screen", *arguments),
            stdin=self.theirs if not controlling else subprocess.DEVNULL,
            stdout=self.theirs if not controlling else subprocess.DEVNULL,
            stderr=self.theirs if not controlling else subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        self.shown = ""

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the terminal; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, seconds: float) -> None:
        """Take what is shown within so many seconds, or at once when something comes."""
        if select.select([self.ours], [], [], seconds)[0]:
            self.shown += os.read(self.ours, 65_536).decode(errors="replace")

    def read_until(self, reached: Callable[[], bool], what: str, *, timeout_s: float = 15) -> None:
        """Read until it is so."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline, (
                f"not within {timeout_s} s: {what}: {self.shown[-2_000:]!r}"
            )
            self.read(0.05)

    def is_live(self) -> bool:
        """Return whether the story was shown at least twice."""
        return len(self.frames()) >= 2

    def frames(self) -> list[list[str]]:
        """Return the lines of every whole picture painted, without codes."""
        pieces = self.shown.partition(BEGIN)[2].split(HOME)[:-1]
        return [
            CODES.sub("", piece).replace("\r", "").split("\n")
            for piece in pieces
            if "recall" in piece
        ]

    def end(self, timeout_s: float = ENDS_WITHIN_S) -> int:
        """Read to the end of the process; return its exit status."""
        self.read_until(lambda: self.process.poll() is not None, "the end", timeout_s=timeout_s)
        while select.select([self.ours], [], [], 0)[0]:
            self.read(0)
        return self.process.returncode

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self.theirs)
        os.close(self.ours)
        self.ours = -1

    def close(self) -> None:
        """End what is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.ours >= 0:
            self.hang_up()

    def assert_as_before(self) -> None:
        """Check that the cursor is shown, the normal screen is on, and the modes are the old ones."""
        assert self.shown.rindex(SHOWN) > self.shown.rindex(HIDDEN)
        assert self.shown.rindex("\x1b[?1049l") > self.shown.rindex("\x1b[?1049h")
        assert termios.tcgetattr(self.theirs) == self.modes

    def after(self) -> str:
        """Return what stands on the normal screen after the view, without codes."""
        return CODES.sub("", self.shown.rpartition(END)[2]).replace("\r", "")


@contextmanager
def on_a_terminal(
    *arguments: str, controlling: bool = True, **environment: str
) -> Iterator[OnTerminal]:
    terminal = OnTerminal(*arguments, controlling=controlling, **environment)
    try:
        yield terminal
    finally:
        terminal.close()


def test_a_story_is_shown_live_and_its_last_picture_stays_with_what_follows() -> None:
    with on_a_terminal("story", "1.5") as terminal:
        assert terminal.end(15) == 0
        frames = terminal.frames()
        assert len(frames) >= 4
        assert frames[0] != frames[-1], "it moves"
        assert all(len(line) <= 100 for frame in frames for line in frame)
        terminal.assert_as_before()
        after = terminal.after()
        assert after.startswith("fraudstream demo · drift")
        places = [
            after.index(t) for t in ("a table at the end", "s  the story is over", CLEANED_UP)
        ]
        assert places == sorted(places)
        assert "the story begins" not in terminal.shown, "pictures have the story themselves"


def test_the_last_picture_is_of_the_last_moment() -> None:
    with on_a_terminal("quiet", "1.5") as terminal:
        assert terminal.end(15) == 0
        (first,) = terminal.frames()
        assert first[0] != terminal.after().splitlines()[0]


def test_the_view_follows_the_size_of_the_terminal() -> None:
    with on_a_terminal("story", "60") as terminal:
        terminal.read_until(terminal.is_live, "the view")
        for columns, lines in ((72, 20), (40, 10), (140, 45)):
            terminal.resize(columns, lines)
            count = len(terminal.frames())
            terminal.read_until(lambda c=count: len(terminal.frames()) >= c + 3, "new pictures")  # type: ignore[misc]
            last = terminal.frames()[-1]
            assert max(map(len, last)) == columns or columns == 40
            assert max(map(len, last)) <= columns
            assert len(last) <= lines
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 143


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("Ctrl-C", 130),
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGQUIT, 131),
    ],
)
def test_a_signal_ends_the_story_cleanly_and_gives_the_terminal_back(
    how: str | signal.Signals, status: int
) -> None:
    with on_a_terminal("story", "60") as terminal:
        terminal.read_until(terminal.is_live, "the view")
        if isinstance(how, signal.Signals):
            terminal.process.send_signal(how)
        else:
            os.write(terminal.ours, b"\x03")
        assert terminal.end() == status
        terminal.assert_as_before()
        assert terminal.after().startswith("fraudstream demo"), "the last picture stays"
        assert CLEANED_UP in terminal.after()
        assert "stopped" in terminal.after()
        assert "Traceback" not in terminal.shown


def test_signals_that_follow_the_first_do_not_disturb_the_cleaning_up(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with on_a_terminal("story", "60", str(witness)) as terminal:
        terminal.read_until(terminal.is_live, "the view")
        terminal.process.send_signal(signal.SIGTERM)
        terminal.read_until(witness.exists, "cleaning up", timeout_s=20)
        terminal.process.send_signal(signal.SIGHUP)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 143
        assert CLEANED_UP in terminal.after()


@pytest.mark.parametrize("controlling", [True, pytest.param(False, marks=pytest.mark.proof)])
def test_a_closed_terminal_ends_the_story_cleanly(*, controlling: bool, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with on_a_terminal("story", "60", str(witness), controlling=controlling) as terminal:
        terminal.read_until(terminal.is_live, "the view")
        terminal.hang_up()
        assert terminal.process.wait(ENDS_WITHIN_S) == 129
    assert witness.read_text() == CLEANED_UP


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_an_error_of_the_watching_thread_ends_the_story_in_one_sentence(term: str) -> None:
    with on_a_terminal("failing", "60", TERM=term) as terminal:
        assert terminal.end(15) == 1
        assert "error: the watched server is gone" in terminal.shown
        assert "Traceback" not in terminal.shown
        assert CLEANED_UP in terminal.shown
        if term != "dumb":
            terminal.assert_as_before()
            assert "fraudstream demo" in terminal.after()


def test_a_crash_is_told_on_the_normal_screen() -> None:
    with on_a_terminal("crash", "1") as terminal:
        assert terminal.end(15) == 1
        terminal.assert_as_before()
        assert terminal.after().startswith("fraudstream demo"), "the last picture stays"
        assert "RuntimeError: a crash in the story" in terminal.after()


def test_a_picture_that_cannot_be_shown_is_a_crash_told_on_the_normal_screen() -> None:
    with on_a_terminal("broken", "60") as terminal:
        assert terminal.end(15) == 1
        terminal.assert_as_before()
        assert "AttributeError" in terminal.after()
        assert CLEANED_UP in terminal.after()


def test_what_others_write_does_not_disturb_the_view_and_is_not_lost() -> None:
    with on_a_terminal("noise", "1") as terminal:
        assert terminal.end(15) == 0
        view, _, _ = terminal.shown.rpartition(END)
        assert "noise" not in view
        assert "no bars" not in view
        for line in ("noise of print", "noise of a library", "noise of a child", "no bars"):
            assert line in terminal.after()


def test_a_stopped_demo_gives_the_terminal_back_until_it_goes_on() -> None:
    with on_a_terminal("story", "60") as terminal:
        terminal.read_until(terminal.is_live, "the view")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.read_until(lambda: terminal.shown.endswith(SHOWN), "the cursor is back")
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        terminal.assert_as_before()
        terminal.shown = ""
        terminal.process.send_signal(signal.SIGCONT)
        terminal.read_until(terminal.is_live, "the view again")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 143


def test_a_terminal_held_up_by_ctrl_s_is_given_back_all_the_same() -> None:
    with on_a_terminal("story", "60") as terminal:
        terminal.read_until(terminal.is_live, "the view")
        os.write(terminal.ours, b"\x13")
        wait_until(
            lambda: not select.select([], [terminal.theirs], [], 0)[1], timeout_s=5, what="held"
        )
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end(30) == 143
        terminal.assert_as_before()
        assert CLEANED_UP in terminal.after()


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_end() -> None:
    with on_a_terminal("story", "60") as terminal:
        wait_until(
            lambda: not select.select([], [terminal.theirs], [], 0)[1], timeout_s=15, what="full"
        )
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(30) == 143


def test_no_color_is_respected_and_ascii_terminals_get_ascii() -> None:
    with on_a_terminal("story", "0.5", NO_COLOR="1", PYTHONIOENCODING="ascii") as terminal:
        assert terminal.end(15) == 0
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.shown)
        assert terminal.shown.isascii()
        assert "***" in terminal.frames()[-1][4], "the chart of the rate"


def test_a_dumb_terminal_gets_plain_lines() -> None:
    with on_a_terminal("story", "1", TERM="dumb") as terminal:
        assert terminal.end(15) == 0
        assert "\x1b" not in terminal.shown
        assert re.search(r"^ +[\d.]+ s  the story begins\r$", terminal.shown, re.MULTILINE)
        assert re.search(
            r"^ +[\d.]+ s  [\d,]+ in, [\d,]+ scored.*version 2\r$", terminal.shown, re.M
        )


def piped(*arguments: str, begin: str = 'exec "$@" 2>&1') -> "subprocess.Popen[str]":
    command = ("sh", "-c", begin, "sh", sys.executable, "-m", "tests.moving_screen", *arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_pipe_gets_plain_lines_to_the_end() -> None:
    with piped("story", "1") as process:
        said, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    lines = said.splitlines()
    assert re.fullmatch(r" +[\d.]+ s  the story begins", lines[0])
    assert sum("difference 0, p99" in line for line in lines) >= 2
    assert lines[-3] == "a table at the end"


@pytest.mark.parametrize("how", ["story", "quiet", "talk"])
def test_a_reader_who_leaves_ends_the_story_cleanly(how: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with piped(how, "60", str(witness)) as process:
        assert process.stdout is not None
        assert " s  " in process.stdout.readline()
        process.stdout.close()
        assert process.wait(ENDS_WITHIN_S) == 141
    assert witness.read_text() == CLEANED_UP


def test_sighup_stays_ignored_under_nohup() -> None:
    with piped("story", "1.5", begin='trap "" HUP; exec "$@" 2>&1') as process:
        assert process.stdout is not None
        assert "the story begins" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "the story is over" in said
