"""Before the first hop: a replay holds its source for itself, since two would send every row twice."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from fraudstream.core.errors import FraudstreamError, Refused, SettingsError
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack.locks import acquire

LONGEST_NAME = 200
"""Of a longer identity its end is kept: that is where its digest stands."""


@contextmanager
def alone(settings: Settings, source: str) -> Iterator[None]:
    """Hold `source` (its identity) in this environment; the kernel lets go however the process ends.

    Raises:
        Refused: another replay of it runs with the same state folder.
        SettingsError: the state folder cannot be written.
    """
    folder = state_path(settings) / "replay"
    name = quote(source, safe="")[-LONGEST_NAME:]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder / f"{settings.environment}.{name}.lock", wait_s=0)
    except OSError as exc:
        raise SettingsError(
            f"state_dir {folder.parent} cannot be written ({exc.strerror}): choose another with "
            "FRAUDSTREAM_STATE_DIR"
        ) from exc
    except FraudstreamError as exc:
        raise Refused(
            f"another replay of source {source} runs in environment {settings.environment}: wait for its "
            "end or stop it, or two would send the same rows"
        ) from exc
    try:
        yield
    finally:
        os.close(lock)
