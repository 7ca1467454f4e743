"""A broker that takes what it is sent is not silent, whatever else is waited for meanwhile."""

import threading
from collections.abc import Callable

import pytest

from fraudstream.clients import kafka_producers
from fraudstream.clients.kafka_producers import _Confluent, _Silence
from fraudstream.core.settings import Settings


class Queue:
    """A librdkafka producer whose broker has taken all but `held` records."""

    def __init__(self, held: int) -> None:
        self.held = held

    def __len__(self) -> int:
        return self.held

    def produce(self, *_: object, on_delivery: Callable[..., None], **__: object) -> None:
        self.on_delivery = on_delivery

    def flush(self, _: float) -> int:
        """The first wait is not long enough."""
        self.held -= 1
        if self.held == 0:
            self.on_delivery(None, self)
        return self.held

    def offset(self) -> int:
        return 5


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the clock: one number, to be set."""
    now = [100.0]
    monkeypatch.setattr(kafka_producers, "monotonic_s", lambda: now[0])
    return now


def test_a_full_queue_beside_a_wait_for_labels_is_no_delivery(seconds: list[float]) -> None:
    silence = _Silence(Settings(), threading.Event())
    sending = _Confluent(Settings(), silence)
    queue, waited = Queue(1_000), Queue(2)
    vars(sending).update(_producer=queue, _waited=waited, _handed_over=5_000)
    assert sending.send_and_wait("feedback", [(b"", b"", 0, [])]) == 5
    for queue.held in range(1_000, 900, -10):  # it takes ten records a second
        seconds[0] += 1
        sending.check()
        assert sending.silent_s() == 0
    for waited_s in (1.0, 4.0):
        seconds[0] += waited_s
        sending.check()
    assert sending.silent_s() == 5, "nothing since"
    queue.held = 0
    sending.check()
    seconds[0] += 100
    assert sending.silent_s() == 0, "nothing is outstanding"
