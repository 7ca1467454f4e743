"""Watches committed scores from outside while they come: latency to a committed reader, scores, alerts."""

import threading

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from fraudstream.clients.clock import now_ms
from fraudstream.clients.kafka import reader
from fraudstream.core.scores import Decision
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name


class Seen(msgspec.Struct, frozen=True):
    """The part of a score record that the observer keeps."""

    transaction_id: str
    source_timestamp_ms: int
    score: float | None
    decision: Decision
    threshold: float | None
    model_version: str | None
    amount_minor: int
    currency: str
    customer: str
    terminal: str


class Observer:
    """Reads topic scores from its end on, in a thread, until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = reader(
            settings, group=f"{settings.environment}.observer", from_beginning=False
        )
        topic = topic_name(settings.environment, "scores")
        self._consumer.assign(
            [TopicPartition(topic, p, self._end(topic, p)) for p in range(settings.partitions)]
        )
        self._decoder = msgspec.json.Decoder(Seen)
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.latencies_ms: list[int] = []
        self.seen: dict[str, Seen] = {}
        self.latest_alert: Seen | None = None
        self.alerts = 0
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the consumer."""
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def wait_for_more(self, seconds: float) -> None:
        """Wait until more scores have come, or `seconds` have passed."""
        self._news.clear()
        self._news.wait(seconds)

    def quantile_ms(self, q: float) -> float:
        """Return a quantile, in milliseconds, of the time from sending to a committed score read here."""
        return (
            float(np.quantile(np.array(self.latencies_ms), q))
            if self.latencies_ms
            else float("nan")
        )

    def versions(self) -> list[str]:
        """Return the model versions that served, in order of their first score."""
        return list(dict.fromkeys(s.model_version for s in self.seen.values() if s.model_version))

    def _end(self, topic: str, partition: int) -> int:
        try:
            bounds = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=10.0
            )
        except KafkaException:
            return OFFSET_END
        return int(bounds[1])

    def _run(self) -> None:
        while not self._stopping.is_set():
            found = self._consumer.consume(1_000, 0.01)
            read_at_ms = now_ms()
            for message in found:
                if message.error() is None:
                    self._note(self._decoder.decode(message.value() or b""), read_at_ms)
                    self._news.set()

    def _note(self, score: Seen, read_at_ms: int) -> None:
        self.latencies_ms.append(read_at_ms - score.source_timestamp_ms)
        self.seen[score.transaction_id] = score
        if score.decision == "alert":
            self.alerts += 1
            self.latest_alert = score
