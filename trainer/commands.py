"""`fraudstream train` and `fraudstream models`: the trainer's hops from the command line."""

import datetime
import getpass

import click
import msgspec

from fraudstream.clients.clock import now_ms
from fraudstream.clients.feature_set_files import load_feature_set
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.packages import TRAINING, check_installed
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.set_log import find_set
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.model import ModelVersion, model_name
from fraudstream.core.settings import Settings
from fraudstream.stack.addresses import with_addresses
from trainer.options import TrainingOptions
from trainer.pipeline import TrainingReport
from trainer.pipeline import train as run_training
from trainer.promote import Order
from trainer.promote import promote as run_promotion


class EventTime(click.ParamType):
    """An event time: UTC milliseconds, or ISO 8601 (UTC unless it names an offset)."""

    name = "event_time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return UTC milliseconds."""
        if value.isdigit():
            return int(value)
        try:
            time = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither milliseconds nor like 2018-08-01T00:00", param, ctx)
        zone = time.tzinfo or datetime.UTC
        return int(time.replace(tzinfo=zone).timestamp() * 1000)


@click.command()
@click.option(
    "--days",
    type=click.IntRange(1),
    help="Newest days of mature history; they bound the memory [default: all, without a bound].",
)
@click.option(
    "--as-of",
    "as_of_ms",
    type=EventTime(),
    help="Event time at which labels count [default: newest].",
)
@click.option(
    "--validation-share", type=click.FloatRange(0.05, 0.5), default=0.2, show_default=True
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--promote", is_flag=True, help="Make the new version champion.")
@click.option(
    "--feature-set",
    "set_name",
    metavar="NAME",
    help="Live set to train on, by name or hash [default: the one that went live first].",
)
@json_option
@click.pass_obj
def train(
    settings: Settings, /, json_file: str | None, set_name: str | None, **options: object
) -> None:
    """Train on the features that were served and the labels known by then; publish to MLflow.

    Rows younger than the label delay (7 days of event time) are left out; the later part of the
    others validates, then all of them teach. --promote promotes only what is not worse than the champion
    on the same held-out transactions (else exit code 3). Ends with 1 if there is too little to learn from.

    \b
    Examples:
      fraudstream train --promote
      fraudstream train --feature-set windows
      fraudstream train --days 7 --as-of 2018-08-01T00:00 --json report.json
    """
    check_installed(*TRAINING)
    settings = with_addresses(settings)
    chosen = msgspec.convert(
        {**options, "actor": getpass.getuser(), "feature_set": find_set(settings, set_name)},
        TrainingOptions,
    )
    report = run_training(settings, chosen, _say)
    if json_file != "-":
        click.echo(_summary(report))
    _write(json_file, report)
    if chosen.promote and not report.gate.passed:
        raise Refused(
            f"version {report.model_version} is published but not promoted: it {report.gate.why}; to make it "
            f'champion all the same: `fraudstream models promote {report.model_version} --why "..."`'
        )


@click.group()
def models() -> None:
    """List, show and promote the versions of this environment's model.

    \b
    Examples:
      fraudstream models list
      fraudstream models show champion
      fraudstream models promote 3
    """


@models.command("list")
@json_option
@click.pass_obj
def list_models(settings: Settings, /, json_file: str | None) -> None:
    """List all versions, newest first.

    \b
    Examples:
      fraudstream models list
      fraudstream models list --json -
    """
    registry, name = _registry(with_addresses(settings))
    versions = registry.versions(name)
    _write(json_file, versions)
    if json_file is not None:
        return
    if not versions:
        click.echo(f"no version of {name} yet: publish one with `fraudstream train`")
        return
    click.echo(
        f"{name}\nversion  aliases              precision  threshold  feature set       created (UTC)"
    )
    for version in versions:
        click.echo(_row(version))


@models.command()
@click.argument("version")
@json_option
@click.pass_obj
def show(settings: Settings, /, version: str, json_file: str | None) -> None:
    """Show one VERSION, given by number or alias, with its model card.

    \b
    Examples:
      fraudstream models show 3
      fraudstream models show champion --json -
    """
    registry, name = _registry(with_addresses(settings))
    found = _resolved(registry, name, version)
    _write(json_file, found)
    if json_file is None:
        click.echo(f"{name} version {found.version}  {', '.join(found.aliases)}")
        click.echo(f"sha256      {found.sha256}\nfeature set {found.feature_set}\n")
        click.echo(found.description)


@models.command()
@click.argument("version")
@click.option("--why", default="models promote", show_default=True, help="Reason for the audit.")
@json_option
@click.pass_obj
def promote(settings: Settings, /, version: str, why: str, json_file: str | None) -> None:
    """Make VERSION champion after checking it; the former champion becomes `previous`.

    Of two promotions at once the second is refused (exit code 3).

    \b
    Examples:
      fraudstream models promote 3
      fraudstream models promote previous --why "version 4 alerts too much"
    """
    settings = with_addresses(settings)
    registry, name = _registry(settings)
    number = _resolved(registry, name, version).version
    order = Order(version=number, actor=getpass.getuser(), why=why, now_ms=now_ms())
    first = load_feature_set(settings.feature_set)
    outcome = run_promotion(settings, registry, order, feature_set=first)
    _write(json_file, outcome)
    if json_file is None and outcome.moved:
        click.echo(f"version {number} of {name} is champion (before: {outcome.previous or 'none'})")
    elif json_file is None:
        click.echo(f"version {number} of {name} is champion already; nothing was changed")


def _registry(settings: Settings) -> tuple[ModelRegistry, str]:
    registry = ModelRegistry(
        settings.mlflow_url,
        connect_timeout_ms=settings.connect_timeout_ms,
        request_timeout_ms=settings.request_timeout_ms,
    )
    return registry, model_name(settings.environment)


def _resolved(registry: ModelRegistry, name: str, version: str) -> ModelVersion:
    by_number = version.isdigit()
    found = registry.version(name, version) if by_number else registry.alias(name, version)
    if found is None:
        raise FraudstreamError(
            f"{name} has no version {version}: look with `fraudstream models list`"
        )
    return found


def _say(line: str) -> None:
    click.echo(line, err=True)


def _write(json_file: str | None, result: object) -> None:
    if json_file is not None:
        write_json(result, json_file)


def _row(version: ModelVersion) -> str:
    created = datetime.datetime.fromtimestamp(version.created_at_ms / 1000, datetime.UTC)
    return (
        f"{version.version:>7}  {','.join(version.aliases):<19}  {_number(version.average_precision):>9}  "
        f"{_number(version.threshold):>9}  {version.feature_set or '-':<16}  {created:%Y-%m-%d %H:%M}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _summary(report: TrainingReport) -> str:
    metrics = report.metrics
    champion = f"; champion (before: {report.previous or 'none'})" if report.promoted else ""
    gate = "passed" if report.gate.passed else "not passed"
    return (
        f"version {report.model_version} of {report.model_name}{champion}\n"
        f"average precision {metrics['average_precision']:.3f} (95 % "
        f"{metrics['average_precision_low']:.3f} to {metrics['average_precision_high']:.3f}, chance "
        f"{metrics['chance']:.4f}), AUC {metrics['roc_auc']:.3f}; from {report.threshold:.4f} on an alert: "
        f"{metrics['alerts_per_1000']:.1f} per 1,000, {metrics['alert_precision']:.0%} of them fraud\n"
        f"gate {gate}: {report.gate.why}\n"
        f"seconds: {', '.join(f'{name} {value}' for name, value in report.seconds.items())}"
    )
