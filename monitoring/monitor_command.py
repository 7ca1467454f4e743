"""`fraudstream monitor`: drift and quality as a service."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click

from fraudstream.clients.logs import configure
from fraudstream.clients.service_web import served
from fraudstream.clients.signals import until_signal
from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.locks import acquire
from monitoring.drift import Levels
from monitoring.monitor import Monitor

DEFAULT = Levels()


@click.command()
@click.option(
    "--enter",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT.enter,
    show_default=True,
    help="PSI from which on a day speaks for drift.",
)
@click.option(
    "--leave",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT.leave,
    show_default=True,
    help="PSI below which a day speaks for its end.",
)
@click.option(
    "--days",
    type=click.IntRange(1),
    default=DEFAULT.days,
    show_default=True,
    help="So many days in a row must speak for it.",
)
@click.option(
    "--min-scores",
    type=click.IntRange(1),
    default=DEFAULT.min_scores,
    show_default=True,
    help="A day with fewer scores by the version that serves is not compared.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    help="Serve /livez, /readyz and /metrics there; 0 takes a free port.",
)
@click.pass_obj
def monitor(
    settings: Settings,
    *,
    enter: float,
    leave: float,
    days: int,
    min_scores: int,
    metrics_port: int | None,
) -> None:
    """Watch over quality and drift, until stopped.

    Reads scores, feedback and dead letters, and writes to the topic `monitoring`, each once whatever
    happens: a record a day of event time (alerts, distance of scores and features from the training of the
    version that serves), one when its labels are mature (recall, precision), one when drift begins or ends.

    \b
    Examples:
      fraudstream monitor
      fraudstream monitor --metrics-port 9103
      fraudstream monitor --enter 0.5 --leave 0.2 --days 3
    """
    if leave >= enter:
        raise SettingsError(f"--leave {leave} must be below --enter {enter}: drift would never end")
    configure(logging.INFO)
    settings = with_addresses(settings)
    with until_signal(), ExitStack() as stack:
        stack.enter_context(_alone(settings))
        service = Monitor(settings, Levels(enter, leave, days, min_scores))
        if metrics_port is not None:
            port = stack.enter_context(
                served(service.registry, service.health, metrics_port, settings.web_host)
            )
            click.echo(f"metrics at http://{settings.web_host}:{port}/metrics", err=True)
        service.run()


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Be the only monitor of the environment on this state folder.

    Raises:
        SettingsError: the folder cannot be written.
        FraudstreamError: another one runs.
    """
    folder = state_path(settings) / "monitor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder / f"{settings.environment}.lock", wait_s=0)
    except OSError as exc:
        raise SettingsError(
            f"state_dir {folder.parent} cannot be written ({exc.strerror}): choose another with "
            "FRAUDSTREAM_STATE_DIR"
        ) from exc
    except FraudstreamError as exc:
        raise FraudstreamError(
            f"another monitor of environment {settings.environment} runs: stop it first"
        ) from exc
    try:
        yield
    finally:
        os.close(lock)
