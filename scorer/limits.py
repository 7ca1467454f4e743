"""How large a record each topic of results takes, as the broker has it: a larger one would be refused."""

from collections.abc import Iterable

from fraudstream.clients.topic_limits import room_of, topic_limits
from fraudstream.core.errors import KafkaUnreachable, Refused
from fraudstream.core.settings import Settings
from scorer.poison import Unscorable
from scorer.results import Output

REFRESH_S = 4.0
"""A worker that starts a batch over does not wait longer: it has to stop when it is asked to."""
RESULTS = ("scores", "alerts", "dead-letters", "audit")


class Limits:
    """The limits by topic (base name), in bytes of a batch that holds one record."""

    def __init__(self, settings: Settings) -> None:
        """Ask for them.

        Raises:
            DependencyUnreachable: no broker answers.
            Refused: a topic does not exist.
        """
        self._settings = settings
        self._bytes = self._ask(settings.connect_timeout_ms / 1000)

    @property
    def lowest(self) -> int:
        """The limit that a batch of several records must keep, whatever topic it is for."""
        return min(self._bytes.values())

    @property
    def dead_letters(self) -> int:
        """The limit of dead letters: a value that does not fit is cut."""
        return self._bytes["dead-letters"]

    def refresh(self) -> bool:
        """Ask again; whether a limit is another than before.

        Raises:
            DependencyUnreachable: no broker answers, or one that starts does not know a topic yet. One that
                is gone for good is seen by `SameTopics`.
        """
        try:
            before, self._bytes = self._bytes, self._ask(REFRESH_S)
        except Refused as exc:
            raise KafkaUnreachable(str(exc)) from exc
        return before != self._bytes

    def check(self, outputs: Iterable[Output]) -> None:
        """Raise if the broker would refuse one of the records.

        Raises:
            Unscorable: names size, topic and limit.
        """
        for output in outputs:
            size = room_of(output.key, output.value, output.headers)
            limit = self._bytes[output.topic]
            if size > limit:
                raise Unscorable(
                    f"its record for topic {output.topic} takes {size} bytes, the topic's max.message.bytes "
                    f"is {limit}",
                    "score_too_large",
                )

    def _ask(self, timeout_s: float) -> dict[str, int]:
        return topic_limits(self._settings, RESULTS, timeout_s=timeout_s)
