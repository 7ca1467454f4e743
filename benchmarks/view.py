"""What the demo's live view costs: CPU a refresh and share of a core, beside a floor.

Run: `.venv/bin/python -m benchmarks.view [--json FILE]` (about 30 s). The demo's own screen paints on a
pseudo-terminal that another thread empties, pictures that move (series of 120 points, 30 alerts) made
beforehand. `refresh_ms` is CPU time of the painting thread from one asking for a picture to the next, in
the best of some parts; `lines_ms` the part of it that turns a picture into lines. The floor is rich's
`Live` on the alternate screen with an empty text. `awake` is CPU of the whole process, but for the
emptying thread, while the screen is on at 2 refreshes a second and nothing else happens.
"""

import argparse
import fcntl
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fraudstream.clients.report_file import write_json
from tests.demo_pictures import moving
from verify.demo import view
from verify.demo.screen import open_screen
from verify.demo.state import Picture

SIZES = ((80, 24), (100, 30), (120, 40), (200, 60))
REFRESHES, PARTS = 100, 5
PER_S = 2
AWAKE_S = 6.0
PICTURES = [moving(float(n)) for n in range(REFRESHES)]


class Emptied(threading.Thread):
    """Reads the other end of a pseudo-terminal until it says `end`; `cpu_s` is its own CPU time."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self.fd = fd
        self.cpu_s = 0.0
        self.bytes = 0

    def run(self) -> None:
        """Read."""
        while piece := os.read(self.fd, 65_536):
            self.bytes += len(piece)
            self.cpu_s = time.thread_time()
            if piece.endswith(b"end"):
                return


@contextmanager
def terminal(size: tuple[int, int]) -> Iterator[tuple[TextIO, Emptied]]:
    """Yield the writing end of a pseudo-terminal of `size` in columns and lines, and what empties it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    emptied = Emptied(ours)
    emptied.start()
    with os.fdopen(theirs, "w") as file:
        yield file, emptied
        file.write("end")
        file.flush()
        emptied.join()
    os.close(ours)


def on(file: TextIO) -> Console:
    """Return a console on the pseudo-terminal."""
    return Console(file=file, force_terminal=True, force_interactive=True, color_system="256")


def best_ms(act: Callable[[int], object]) -> float:
    """Return the CPU milliseconds of one `act(number)` in the best of some parts."""
    parts = []
    for _ in range(PARTS):
        begin = time.thread_time()
        for number in range(REFRESHES):
            act(number)
        parts.append((time.thread_time() - begin) / REFRESHES * 1_000)
    return min(parts)


def painted_ms(size: tuple[int, int]) -> tuple[float, float]:
    """Return CPU milliseconds of one refresh and the kilobytes that it writes."""
    asked_at: list[float] = []
    enough = threading.Event()

    def source() -> Picture:
        asked_at.append(time.thread_time())
        if len(asked_at) > REFRESHES * PARTS:
            enough.set()
        return PICTURES[len(asked_at) % REFRESHES]

    with terminal(size) as (file, emptied):
        with open_screen(on(file), source, refresh_s=0.001):
            enough.wait()
        kilobytes = emptied.bytes / len(asked_at) / 1_000
    parts = [asked_at[(i + 1) * REFRESHES] - asked_at[i * REFRESHES] for i in range(PARTS)]
    return min(parts) / REFRESHES * 1_000, kilobytes


def floor_ms(size: tuple[int, int]) -> float:
    """Return CPU milliseconds of one refresh of rich's Live with nothing to show."""
    with (
        terminal(size) as (file, _),
        Live(Text(""), console=on(file), screen=True, auto_refresh=False) as live,
    ):
        return best_ms(lambda _: live.refresh())


def awake_percent(size: tuple[int, int], refresh_s: float) -> float:
    """Return the share of a core that the process takes with the screen on."""
    with (
        terminal(size) as (file, emptied),
        open_screen(on(file), lambda: PICTURES[0], refresh_s=refresh_s),
    ):
        begin = time.process_time() - emptied.cpu_s
        threading.Event().wait(AWAKE_S)
        spent = time.process_time() - emptied.cpu_s - begin
    return spent / AWAKE_S * 100


def measured(size: tuple[int, int]) -> dict[str, float]:
    """Return everything at one size."""
    lines_ms = best_ms(lambda n: view.render(PICTURES[n], *size))
    refresh_ms, kilobytes = painted_ms(size)
    floor = floor_ms(size)
    return {
        "columns": size[0],
        "lines": size[1],
        "lines_ms": round(lines_ms, 3),
        "refresh_ms": round(refresh_ms, 3),
        "refresh_kilobytes": round(kilobytes, 1),
        "floor_refresh_ms": round(floor, 3),
        "percent_of_core_at_2_per_s": round(refresh_ms * PER_S / 10, 3),
        "floor_percent_of_core_at_2_per_s": round(floor * PER_S / 10, 3),
        "awake_percent_of_core": round(awake_percent(size, 1 / PER_S), 3),
    }


def main() -> None:
    """Run the benchmark and print or write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="-", help="file for the result; - for standard output")
    target = parser.parse_args().json
    result = {"load_average": round(os.getloadavg()[0], 1), "sizes": [measured(s) for s in SIZES]}
    write_json(result, target)


if __name__ == "__main__":
    main()
