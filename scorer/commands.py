"""`fraudstream scorer`: one worker; start several side by side and they share the partitions."""

import faulthandler
import gc
import logging

import click

from fraudstream.clients.logs import configure
from fraudstream.core.errors import DependencyUnreachable, KafkaUnreachable, SettingsError
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack.addresses import with_addresses

logger = logging.getLogger(__name__)

LAST_PORT = 65_535


@click.command()
@click.option(
    "--slot",
    type=click.IntRange(0, 255),
    help="Place in the group; default: that of a worker which died here, else the lowest free one.",
)
@click.option(
    "--leave",
    is_flag=True,
    help="When stopped, give the place in the group up: others take the partitions over at once.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve the web views at exactly this port, not at web_port + slot; 0 takes a free one.",
)
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
@click.pass_obj
def scorer(
    settings: Settings, slot: int | None, *, metrics_port: int | None, leave: bool, quiet: bool
) -> None:
    """Score the transactions of an environment until stopped.

    Every transaction gets exactly one committed score, or a dead letter that says why not. Without a
    champion model the features are logged, so that the first training can learn from them.

    \b
    Examples:
      fraudstream scorer                 one worker, on a free slot
      fraudstream scorer & fraudstream scorer
                                         two workers share the partitions
      fraudstream scorer --leave         one more for a while: stopped, it hands its partitions over
      FRAUDSTREAM_WEB_PORT=6066 fraudstream scorer
                                         web views /livez /readyz /model /metrics at 6066 + slot
    """
    configure(logging.WARNING if quiet else logging.INFO)
    run(with_addresses(settings), slot, metrics_port=metrics_port, leave=leave)


def run(
    settings: Settings, wanted_slot: int | None, *, metrics_port: int | None, leave: bool
) -> None:
    """Run a worker until it is stopped; the exit status is that of what ended it.

    Its place in the group is kept for a restart for the length of a session, unless it is to `leave`.

    Raises:
        FraudstreamError: a server does not answer, or going on is not safe.
    """
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - loads as long as Faust itself

    from fraudstream.clients.kafka import instance_id, kept_places  # noqa: PLC0415
    from scorer.app import (  # noqa: PLC0415 - Faust takes half a second that `--help` need not wait for
        HotPathService,
        ScorerWorker,
        build_app,
        build_hot_path,
    )
    from scorer.assignment import group_name  # noqa: PLC0415
    from scorer.slot import Slot  # noqa: PLC0415

    faulthandler.enable()  # says on standard error where native code was called that ends the process
    group = group_name(settings)
    kept = kept_places(settings, group)
    slot = Slot.take(state_path(settings), group, wanted_slot, kept=kept)
    logger.info("takes place %s", instance_id(group, slot.number))
    port = _web_port(settings, slot.number) if metrics_port is None else metrics_port
    hot_path = build_hot_path(settings, slot.number)
    hot_path.status.slot = instance_id(group, slot.number)
    hot_path.status.restarts = slot.restarts
    hot_path.prepare()
    app = build_app(settings, hot_path, slot.number, port)
    service = HotPathService(hot_path)
    worker = ScorerWorker(app, service)
    _look_for_garbage_seldom()
    try:
        worker.execute_from_commandline()
    except SystemExit as exc:
        if isinstance(exc.__context__, KafkaError):  # of Faust's own client
            raise KafkaUnreachable(
                f"Kafka at {settings.kafka_bootstrap} went away while this worker started "
                f"({exc.__context__}): start it again"
            ) from exc
        raise
    finally:
        if leave and service.failure is None:
            _leave(settings, group, slot.number)
        slot.release()
        if service.failure is not None:
            # Faust ends with status 1 whatever went wrong; the reason knows better.
            raise service.failure


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
    from fraudstream.clients.group_members import remove_member  # noqa: PLC0415

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
