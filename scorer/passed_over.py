"""Which records a feature set does not hold: the dead letters say so, whatever can be read of them today."""

from collections.abc import Callable, Mapping

from fraudstream.clients.topic_log import TopicReader, record_of
from fraudstream.core.dead_letters import own_headers
from fraudstream.core.errors import UNREADABLE_KINDS
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.batch import ALL
from scorer.results import place_of


class PassedOver:
    """Places (partition, offset) in `transactions` that a rebuild of one set leaves out."""

    def __init__(self, settings: Settings, feature_set: str) -> None:
        self._topic = topic_name(settings.environment, "dead-letters")
        self._wanted = {ALL, feature_set}
        self._read_to: dict[int, int] = {}
        self.places: set[tuple[int, int]] = set()

    def refresh(self, reader: TopicReader, meanwhile: Callable[[], None]) -> None:
        """Read what was written since the last time; `meanwhile` is called while a transaction is open there.

        Raises:
            DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
        """
        bounds = reader.whole_bounds(self._topic, meanwhile)
        ranges = {p: (max(low, self._read_to.get(p, 0)), end) for p, (low, end) in bounds.items()}
        for batch in reader.batches(self._topic, ranges):
            for message in batch:
                headers = own_headers(record_of(message).headers)
                if self._wanted.intersection(_lacking(headers)):
                    self.places.add(place_of(headers))
        self._read_to = {partition: end for partition, (_, end) in ranges.items()}


def _lacking(headers: Mapping[str, bytes]) -> list[str]:
    """Return the sets that do not hold the record; older workers said nothing where it is no transaction."""
    kind = headers.get("error_kind", b"").decode(errors="replace")
    said = headers.get("not_applied", ALL.encode() if kind in UNREADABLE_KINDS else b"")
    return said.decode(errors="replace").split(",")
