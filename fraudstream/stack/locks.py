"""File locks that the kernel releases with the last process that holds them, also after SIGKILL."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.settings import Settings, state_path

if sys.platform != "win32":  # there, the stack says that it needs Linux or macOS
    import fcntl

POLL_S = 0.02


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock of `path` exclusively."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def acquire(path: Path, *, wait_s: float) -> int:
    """Return a descriptor that holds the lock of `path`; children that inherit it hold it as well.

    Raises:
        FraudstreamError: another process still holds it after `wait_s` seconds.
    """
    deadline = monotonic_s() + wait_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic_s() > deadline:
                os.close(descriptor)
                raise FraudstreamError(
                    f"{path} is held by another process for more than {wait_s:.0f} s: "
                    "wait for the other command or end it"
                ) from None
        else:
            return descriptor
        pause(POLL_S)


@contextmanager
def exclusive(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the lock of `path` during the block.

    Raises:
        FraudstreamError: another process still holds it after `wait_s` seconds.
    """
    descriptor = acquire(path, wait_s=wait_s)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def sole(settings: Settings, name: str, taken: FraudstreamError) -> Iterator[None]:
    """Be the only one of this name on the state folder; the kernel lets go however the process ends.

    Raises:
        FraudstreamError: `taken`, as another one holds the name.
        SettingsError: the state folder cannot be written.
    """
    path = state_path(settings) / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(path, wait_s=0)
    except OSError as exc:
        raise SettingsError(
            f"state_dir {state_path(settings)} cannot be written ({exc.strerror}): choose another with "
            "FRAUDSTREAM_STATE_DIR"
        ) from exc
    except FraudstreamError as exc:
        raise taken from exc
    try:
        yield
    finally:
        os.close(lock)


def pause(seconds: float) -> None:
    """Let `seconds` pass between two looks at a state that has a deadline."""
    threading.Event().wait(seconds)
