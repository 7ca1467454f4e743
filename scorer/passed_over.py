"""Which records a feature set does not hold, though they can be read: the dead letters say so."""

from fraudstream.clients.topic_log import TopicReader, record_of
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.burial import ALL
from scorer.results import own_headers, place_of


class PassedOver:
    """Places (partition, offset) in `transactions` that a rebuild of one set leaves out."""

    def __init__(self, settings: Settings, feature_set: str) -> None:
        self._topic = topic_name(settings.environment, "dead-letters")
        self._wanted = {ALL, feature_set}
        self._read_to: dict[int, int] = {}
        self.places: set[tuple[int, int]] = set()

    def refresh(self, reader: TopicReader) -> None:
        """Read what was committed since the last time.

        Raises:
            DependencyUnreachable: no broker answers.
        """
        bounds = reader.bounds(self._topic)
        ranges = {p: (max(low, self._read_to.get(p, 0)), end) for p, (low, end) in bounds.items()}
        for batch in reader.batches(self._topic, ranges):
            for message in batch:
                headers = own_headers(record_of(message).headers)
                lacking = (headers.get("not_applied") or b"").decode(errors="replace").split(",")
                if self._wanted.intersection(lacking):
                    self.places.add(place_of(headers))
        self._read_to = {partition: end for partition, (_, end) in ranges.items()}
