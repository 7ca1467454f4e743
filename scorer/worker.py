"""A worker's process from its start to its end: place, hot path, Faust around it, exit status."""

import faulthandler
import gc
import logging
import signal
from functools import partial

from fraudstream.clients.kafka import instance_id, kept_places
from fraudstream.core.errors import DependencyUnreachable, KafkaUnreachable, SettingsError
from fraudstream.core.settings import Settings, state_path
from scorer.assignment import group_name
from scorer.bootstrap import build_hot_path
from scorer.hot_path import HotPath
from scorer.scoring import Scoring
from scorer.slot import Slot

logger = logging.getLogger(__name__)

LAST_PORT = 65_535
FAUST_AFTER_S = 1.0
"""So long Faust waits for the first batch, which it would hold up: loading it takes half a second."""


def run(
    settings: Settings, wanted_slot: int | None, *, metrics_port: int | None, leave: bool
) -> None:
    """Run a worker until it is stopped; the exit status is that of what ended it.

    Its place in the group is kept for a restart for the length of a session, unless it is to `leave`.

    Raises:
        FraudstreamError: a server does not answer, or going on is not safe.
    """
    faulthandler.enable()  # says on standard error where native code was called that ends the process
    faulthandler.register(signal.SIGUSR1)  # and where all threads are, for who asks
    slot = _take_slot(settings, wanted_slot)
    port = _web_port(settings, slot.number) if metrics_port is None else metrics_port
    hot_path = _ready(settings, slot)
    leaving = partial(_leave, settings, group_name(settings), slot.number)
    scoring = Scoring(hot_path, leaving) if leave else Scoring(hot_path)
    scoring.begin()
    try:
        hot_path.under_way.wait(FAUST_AFTER_S)
        if not scoring.ending:
            _accompany(scoring, settings, slot.number, port)
    finally:
        scoring.finish()
        slot.release()
        if scoring.failure is not None:
            # Faust ends with status 1 whatever went wrong; the reason knows better.
            raise scoring.failure


def _accompany(scoring: Scoring, settings: Settings, slot: int, port: int) -> None:
    """Load Faust and have its worker run around the hot path, until that is over."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - the first batch need not wait for it

    from scorer.app import ScorerWorker, build_app  # noqa: PLC0415 - as above

    worker = ScorerWorker(build_app(settings, scoring.hot_path, slot, port), scoring)
    _look_for_garbage_seldom()
    if scoring.ending:
        return
    try:
        worker.execute_from_commandline()
    except SystemExit as exc:
        if scoring.asked:
            return
        if isinstance(exc.__context__, KafkaError):  # of Faust's own client
            scoring.beside = KafkaUnreachable(
                f"Kafka at {settings.kafka_bootstrap} went away while this worker started "
                f"({exc.__context__}): start it again"
            )
            raise scoring.beside from exc
        raise


def _take_slot(settings: Settings, wanted: int | None) -> Slot:
    group = group_name(settings)
    slot = Slot.take(state_path(settings), group, wanted, kept=kept_places(settings, group))
    logger.info("takes place %s", instance_id(group, slot.number))
    return slot


def _ready(settings: Settings, slot: Slot) -> HotPath:
    """Return the hot path, connected and with its model; an earlier process of the slot is fenced."""
    hot_path = build_hot_path(settings, slot.number)
    hot_path.status.slot = instance_id(group_name(settings), slot.number)
    hot_path.status.restarts = slot.restarts
    hot_path.prepare()
    return hot_path


def _web_port(settings: Settings, slot: int) -> int:
    """Return the port of a worker's web views, 0 for a free one.

    Raises:
        SettingsError: there is no such port.
    """
    port = settings.web_port + slot if settings.web_port else 0
    if port > LAST_PORT:
        raise SettingsError(
            f"setting web_port = {settings.web_port} and slot {slot} make {port}: there are "
            f"{LAST_PORT}; choose a lower web_port, or --metrics-port"
        )
    return port


def _leave(settings: Settings, group: str, slot: int) -> None:
    """Give up the place in the group."""
    from fraudstream.clients.group_members import (  # noqa: PLC0415 - kafka-python loads for 0.1 s
        remove_member,
    )

    try:
        remove_member(settings, group, slot)
    except DependencyUnreachable as exc:
        logger.warning("%s; the others take over after session_timeout_ms", exc)


GARBAGE_AFTER = 50_000
"""So many more containers made than freed, and Python looks for cycles among them: a few batches."""


def _look_for_garbage_seldom() -> None:
    """Spare what is loaded by now, cycles that nobody needs any more included, and look at the rest seldom.

    Records are in no cycles, so hardly anything is found; looking each 700 containers, and each time at
    all modules sooner or later, took a seventh of the worker's time (docs/performance.md).
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    gc.enable()  # `fraudstream scorer` has it off while it loads
