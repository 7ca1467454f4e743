"""How a service is asked to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from fraudstream.core.errors import Ended


@contextmanager
def until_signal() -> Iterator[None]:
    """End the block, as one that is done, at SIGTERM or Ctrl-C."""

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(f"ended by {signal.Signals(number).name}", number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        signal.signal(signal.SIGTERM, before)
