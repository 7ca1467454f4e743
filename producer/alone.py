"""Before the first hop: a replay holds its source for itself, since two would send every row twice."""

from contextlib import AbstractContextManager
from urllib.parse import quote

from fraudstream.core.errors import Refused
from fraudstream.core.settings import Settings
from fraudstream.stack.locks import sole

LONGEST_NAME = 200
"""Of a longer identity its end is kept: that is where its digest stands."""


def alone(settings: Settings, source: str) -> AbstractContextManager[None]:
    """Hold `source` (its identity) in this environment for the length of a block.

    Raises:
        Refused: another replay of it runs with the same state folder.
        SettingsError: the state folder cannot be written.
    """
    name = quote(source, safe="")[-LONGEST_NAME:]
    taken = Refused(
        f"another replay of source {source} runs in environment {settings.environment}: wait for its "
        "end or stop it, or two would send the same rows"
    )
    return sole(settings, f"replay/{settings.environment}.{name}", taken)
