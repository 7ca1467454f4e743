"""The first question to Kafka: a broker that counts as none for a moment is asked by a new client."""

from types import SimpleNamespace

import pytest

from fraudstream.clients import kafka
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings

FENCED, WELL = -1, 1


class Clients:
    """Makes clients told of these controllers, one each: a real broker is fenced for milliseconds only."""

    def __init__(self, *controllers: int) -> None:
        self.controllers = list(controllers)
        self.made = 0

    def make(self, _: dict[str, object]) -> "SimpleNamespace":
        self.made += 1
        told = self.controllers.pop(0) if len(self.controllers) > 1 else self.controllers[0]
        return SimpleNamespace(
            number=self.made, list_topics=lambda timeout: SimpleNamespace(controller_id=told)
        )


def test_a_broker_that_tells_of_no_controller_is_asked_again_with_a_new_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients = Clients(FENCED, FENCED, WELL)
    monkeypatch.setattr(kafka, "AdminClient", clients.make)
    found = kafka.connected(Settings(), timeout_s=5.0)
    assert vars(found)["number"] == clients.made == 3


def test_a_broker_that_never_tells_of_a_controller_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "AdminClient", Clients(FENCED).make)
    with pytest.raises(KafkaUnreachable, match="it knows no controller"):
        kafka.connected(Settings(), timeout_s=0.2)
