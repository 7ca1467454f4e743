"""How a service is asked to end, and that it does."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from fraudstream.core.errors import Ended

logger = logging.getLogger(__name__)

END_S = 4.5
"""How long a service may take to end once it is asked to."""
ASK_TO_END = (signal.SIGTERM, signal.SIGINT)


def heard_enough() -> None:
    """Let no signal after this one change the end under way. To be called in a handler.

    They are not ignored yet: of one that came together with this one Python would say so, with a traceback.
    """
    for each in ASK_TO_END:
        signal.signal(each, _nothing)


def ignore_signals() -> None:
    """Let no signal change the end under way, the interpreter's own included.

    That has no handlers left: a signal would kill it, and its exit status say so.
    """
    for each in ASK_TO_END:
        signal.signal(each, signal.SIG_IGN)


def _nothing(*_: object) -> None:
    pass


@contextmanager
def until_signal() -> Iterator[None]:
    """End the block, as one that is done, at SIGTERM or Ctrl-C; and the process, should that take too long.

    A call into a library that waits for a server holds the signal up until it comes back. What a
    service has not written by then it writes after its next start: nothing is lost by not waiting.
    From the first signal on, others change nothing. Ctrl-C that is ignored, as a shell has its jobs in the
    background do, stays so.
    """

    def end(number: int, _: FrameType | None) -> None:
        heard_enough()
        raise Ended(f"ended by {signal.Signals(number).name}", number)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        with _ends_in_any_case():
            yield
    except Ended:
        click.echo("stopped", err=True)
    finally:
        if signal.getsignal(signal.SIGTERM) is _nothing:
            ignore_signals()
        else:  # none came
            for each, handler in before.items():
                signal.signal(each, handler)


@contextmanager
def _ends_in_any_case() -> Iterator[None]:
    """See that the process ends soon after a signal that asks it to, also when the block is left before.

    The interpreter writes the number of a signal to `heard` at once, whatever the main thread is at.
    """
    told, heard = socket.socketpair()
    heard.setblocking(False)
    before = signal.set_wakeup_fd(heard.fileno())
    threading.Thread(target=_watch, args=(told,), name="end-guard", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        heard.close()


def _watch(told: socket.socket) -> None:
    with told:
        while number := told.recv(1):  # nothing once the other side is closed
            if number[0] in ASK_TO_END:
                threading.Event().wait(END_S)
                logger.warning(
                    "a server did not let this service end in %.1f s; it ends all the same", END_S
                )
                os._exit(0)
