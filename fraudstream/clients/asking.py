"""Clients that only ask Kafka, and threads for questions that hold their caller up."""

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import LOADING_S, common, unreachable
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
        self._connected = False

    def connect(self, timeout_s: float) -> None:
        """Return once this client has had an answer; holds the thread up, signals included, until then.

        A question for partitions that meets a connection just being made is put off for 1 or 3 s by
        librdkafka (docs/adr/0033).

        Raises:
            KafkaException: no broker answers within `timeout_s`.
        """
        if not self._connected:
            self.require_answer(timeout_s)
            self._connected = True

    def require_answer(self, timeout_s: float) -> None:
        """Return once a broker has answered; holds the thread up, signals included, until then.

        Not with `describe_cluster`: a broker that stood still knows of none for a moment, itself included,
        and that answer ends the process by SIGABRT (librdkafka 2.16, docs/adr/0033).

        Raises:
            KafkaException: none answers within `timeout_s`, or only one that counts as none.
        """
        deadline_s = monotonic_s() + timeout_s
        while not self._brokers(max(deadline_s - monotonic_s(), LOADING_S)):
            if monotonic_s() > deadline_s:
                raise KafkaException(KafkaError(KafkaError._TRANSPORT))  # noqa: SLF001
            self.renew()  # this one may have forgotten where to ask
            threading.Event().wait(LOADING_S)

    def _brokers(self, timeout_s: float) -> Collection[int]:
        return self.client.list_topics(timeout=timeout_s).brokers


class Broker:
    """One connection that only asks whether Kafka answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asking = Asking(settings, log_level=0)

    def require_answer(self) -> None:
        """Return once a broker has answered; a signal ends the wait at once.

        Raises:
            DependencyUnreachable: none answers within `request_timeout_ms`.
        """
        timeout_s = self._settings.request_timeout_ms / 1000
        try:
            in_thread(partial(self._asking.require_answer, timeout_s)).result()
        except KafkaException as exc:
            self._asking.renew()
            raise unreachable(self._settings, exc) from exc


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
