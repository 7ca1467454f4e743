"""A process of a test: the demo's screen with pictures that move, and a main flow that waits.

Usage: python -m tests.moving_screen HOW SECONDS [FILE]; HOW is one of the names in `HOWS`; FILE tells
that it is cleaning up, then that everything was cleaned up.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
from rich.console import Console

from fraudstream.core.errors import Ended, FraudstreamError
from tests.demo_pictures import moving
from verify.demo.screen import Screen, open_screen
from verify.demo.state import Picture

STARTED_S = time.monotonic()
CLEANED_UP = "everything was cleaned up"


def wait(seconds: float) -> None:
    """Wait as the story does: in a call that a signal interrupts."""
    threading.Event().wait(seconds)


def source() -> Picture:
    """Return the picture of this moment."""
    return moving(time.monotonic() - STARTED_S)


def failing_source() -> Picture:
    """Return pictures for a second, then fail as an observer does whose server is gone."""
    if time.monotonic() - STARTED_S > 1:
        raise FraudstreamError("the watched server is gone")
    return source()


def broken_source() -> Picture:
    """Return pictures for a second, then one that cannot be shown."""
    late = time.monotonic() - STARTED_S > 1
    return msgspec.structs.replace(source(), recall=None) if late else source()


def story(screen: Screen, seconds: float) -> None:
    """Tell a line, wait, leave, print a table."""
    screen.tell("the story begins")
    wait(seconds)
    screen.leave()
    sys.stdout.write("a table at the end\n")
    screen.tell("the story is over")


def talk(screen: Screen, seconds: float) -> None:
    """Tell many lines."""
    for _ in range(int(seconds / 0.02)):
        screen.tell("and then")
        wait(0.02)


def crash(screen: Screen, seconds: float) -> None:
    """End by an error that nobody expected."""
    del screen
    wait(seconds)
    raise RuntimeError("a crash in the story")


def noise(screen: Screen, seconds: float) -> None:
    """Write to the terminal by all ways but the screen's."""
    wait(seconds / 2)
    sys.stdout.write("noise of print\n")
    os.write(2, b"noise of a library\n")
    subprocess.run(["sh", "-c", "echo noise of a child; test -t 2 || echo no bars >&2"], check=True)
    wait(seconds / 2)
    screen.leave()


HOWS = {
    "story": story,
    "quiet": story,
    "talk": talk,
    "failing": story,
    "broken": story,
    "crash": crash,
    "noise": noise,
}


def main() -> None:
    """Do as `fraudstream` does with what ends a command."""
    how, seconds = sys.argv[1], float(sys.argv[2])
    pictures = {"failing": failing_source, "broken": broken_source}.get(how, source)
    witness = Path(sys.argv[3] if len(sys.argv) > 3 else os.devnull)
    times = {"refresh_s": 0.1, "status_s": 0.3}
    if how == "quiet":
        times = {"refresh_s": 600.0, "status_s": 600.0}
    try:
        with open_screen(Console(stderr=True), pictures, started_s=STARTED_S, **times) as screen:
            try:
                HOWS[how](screen, seconds)
            finally:
                witness.write_text("cleaning up")
                wait(0.7)
                witness.write_text(CLEANED_UP)
                sys.stderr.write(f"{CLEANED_UP}\n")
    except Ended as exc:
        sys.stderr.write(f"stopped: {exc}\n")
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    except FraudstreamError as exc:
        sys.stderr.write(f"error: {exc}\n")
        sys.exit(exc.exit_code)


if __name__ == "__main__":
    main()
