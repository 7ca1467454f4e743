"""Sends records at times laid down before, whatever becomes of those already sent: no answer is waited for.

Run as a process of its own: `python -m verify.bench.open_loop SETTINGS-AS-JSON FILE START_NS RATE LINGER_MS`.
"""

import sys
import threading
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from fraudstream.clients.clock import now_ns
from fraudstream.clients.kafka import common
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.bench.backlog import Sent

TICK_S = 0.001
FLUSH_S = 20.0
_pause = threading.Event()


def main() -> None:
    """Send the records of a file, the i-th at START_NS + i / RATE; fail if one did not arrive."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    records = msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes(), type=list[Sent])
    start_ns, rate, linger_ms = int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    topic = topic_name(settings.environment, "transactions")
    failed: list[str] = []

    def not_delivered(error: KafkaError, _: Message) -> None:
        failed.append(error.str())

    producer = Producer(
        common(settings)
        | {
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "delivery.report.only.error": True,
            "on_delivery": not_delivered,
        }
    )
    producer.list_topics(topic, FLUSH_S)
    sent = 0
    while sent < len(records):
        due = min(max(int((now_ns() - start_ns) / 1e9 * rate) + 1, sent), len(records))
        for record in records[sent:due]:
            producer.produce(
                topic, record.value, record.key, record.partition, headers=record.headers
            )
        sent = due
        producer.poll(0)
        _pause.wait(TICK_S)
    if producer.flush(FLUSH_S) or failed:
        sys.exit(f"Kafka did not take every record: {failed[:1]}")


if __name__ == "__main__":
    main()
