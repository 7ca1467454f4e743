"""`fraudstream monitor`: drift and quality as a service."""

import logging
import math
from functools import partial

import click

from fraudstream.clients.logs import configure
from fraudstream.clients.service_web import metrics_port_option, serving
from fraudstream.clients.signals import until_signal
from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.locks import sole
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
    help="So many compared days in a row must speak for it.",
)
@click.option(
    "--min-scores",
    type=click.IntRange(1),
    default=DEFAULT.min_scores,
    show_default=True,
    help="A day with fewer scores by the version that serves is not compared.",
)
@metrics_port_option
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
    if not leave < enter < math.inf:
        raise SettingsError(
            f"--leave {leave} must be below --enter {enter}, and both be numbers: drift would never end"
        )
    configure(logging.INFO)
    settings = with_addresses(settings)
    levels = Levels(enter, leave, days, min_scores)
    taken = FraudstreamError(
        f"another monitor of environment {settings.environment} runs: stop it first"
    )
    with until_signal(), sole(settings, f"monitor/{settings.environment}", taken):
        service = Monitor(settings, levels)
        with serving(service, metrics_port, settings.web_host, partial(click.echo, err=True)):
            service.run()
