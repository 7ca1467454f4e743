"""Clients that only ask Kafka, and threads for questions that hold their caller up."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fraudstream.clients.kafka import answered, common, unreachable
from fraudstream.core.settings import Settings

T = TypeVar("T")


class Asking:
    """A client for questions, to be renewed after one that was not answered.

    It may have lost its broker for good (librdkafka #5301, docs/adr/0024).
    """

    def __init__(self, settings: Settings, **config: object) -> None:
        self._config = common(settings) | config
        self.renew()

    def renew(self) -> None:
        """Ask with a new client from now on."""
        self.client = AdminClient(self._config)


def require_answer(settings: Settings) -> None:
    """Return once a broker has answered a client of this question's own; a signal ends the wait at once.

    Raises:
        DependencyUnreachable: none answers within `request_timeout_ms`.
    """
    config = common(settings) | {"log_level": 0}
    try:
        in_thread(partial(answered, config, settings.request_timeout_ms / 1000)).result()
    except KafkaException as exc:
        raise unreachable(settings, exc) from exc


def in_thread(ask: Callable[[], T]) -> "Future[T]":
    """Ask in a thread of its own, which does not hold up the end of the process."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as exc:  # noqa: BLE001 - it is for who asked
            answer.set_exception(exc)

    threading.Thread(target=run, name="asking", daemon=True).start()
    return answer
