"""Where the topics and the scorers' group stand, asked of the broker at one moment."""

from concurrent.futures import Future

import msgspec
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    OffsetSpec,
)

from fraudstream.clients.kafka import offsets_reader
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

TIMEOUT_S = 5.0
RESULTS = ("scores", "dead-letters")
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Progress(msgspec.Struct, frozen=True):
    """Next offsets.

    `committed` by the scorers and `ends` of `transactions` by partition; `results`: ends of their topics by
    (topic, partition), for readers of committed records.
    """

    committed: dict[int, int]
    ends: dict[int, int]
    results: dict[tuple[str, int], int]

    @property
    def waiting(self) -> int:
        """Return how many transactions no scorer has committed yet."""
        return max(sum(self.ends.values()) - sum(self.committed.values()), 0)


class Broker:
    """Asks the broker; every call is bounded by `TIMEOUT_S`."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0})
        self._group = offsets_reader(settings, f"{settings.environment}.scorer")
        names = {
            name: topic_name(settings.environment, name) for name in ("transactions", *RESULTS)
        }
        self._places = {
            (name, p): TopicPartition(full, p)
            for name, full in names.items()
            for p in range(settings.partitions)
        }

    def close(self) -> None:
        """Close the connections."""
        self._group.close()

    def progress(self) -> Progress:
        """Return where everything stands: first what is committed, then the ends that it implies.

        Raises:
            KafkaException: the broker does not answer in time.
        """
        mine = [place for (name, _), place in self._places.items() if name == "transactions"]
        committed = {
            tp.partition: max(tp.offset, 0) for tp in self._group.committed(mine, TIMEOUT_S)
        }
        asked = self._admin.list_offsets(
            dict.fromkeys(self._places.values(), _LATEST),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=TIMEOUT_S,
        )
        ends = {key: _offset(asked[place]) for key, place in self._places.items()}
        return Progress(
            committed,
            {p: end for (name, p), end in ends.items() if name == "transactions"},
            {key: end for key, end in ends.items() if key[0] != "transactions"},
        )


def _offset(asked: "Future[object]") -> int:
    return int(asked.result(TIMEOUT_S).offset)  # type: ignore[attr-defined]
