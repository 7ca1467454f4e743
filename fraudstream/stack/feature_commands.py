"""`fraudstream features list|explain|diff|memory`: feature sets as data; beside them `snapshot|restore`."""

import click
import msgspec

from fraudstream.clients.feature_library import library_source
from fraudstream.clients.feature_memory import EntityMemory, memory_of
from fraudstream.clients.feature_set_files import load_feature_set
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.feature_diff import (
    Difference,
    definition_text,
    differences,
    parameter_text,
)
from fraudstream.core.feature_kinds import DAY_MS, Feature, duration_text, explain, kind_of
from fraudstream.core.feature_set import FeatureSet, packaged
from fraudstream.stack import snapshot_commands


class ListedSet(msgspec.Struct, frozen=True):
    """One packaged feature set; `hash` is what models and scores name."""

    name: str
    hash: str
    features: tuple[str, ...]
    customer_retention_ms: int
    terminal_retention_ms: int


class Explained(msgspec.Struct, frozen=True):
    """What a feature is, its line in the file, and the parameters that it reads."""

    name: str
    meaning: str
    definition: str
    parameters: dict[str, float]


class SetDifference(msgspec.Struct, frozen=True):
    """Two sets, and in what their values differ."""

    first: str
    second: str
    differences: list[Difference]


@click.group()
def features() -> None:
    """Feature sets: what there is, what they mean, how they differ; the state: copies of it, and back.

    A set is given by the name of a packaged one or by the path of a TOML file.
    """


features.add_command(snapshot_commands.snapshot)
features.add_command(snapshot_commands.restore)


@features.command("list")
@json_option
def list_sets(json_file: str | None) -> None:
    """List the packaged feature sets with their hash and features.

    \b
    Examples:
      fraudstream features list
      fraudstream features list --json - | jq '.[].hash'
    """
    found = [_listed(each) for each in packaged().values()]
    if json_file:
        write_json(found, json_file)
    if json_file == "-":
        return
    for each in found:
        kept = f"kept {duration_text(each.customer_retention_ms)} per customer"
        click.echo(f"{each.name}  {each.hash}  {len(each.features)} features, {kept}")
        click.echo(f"  {', '.join(each.features)}")


@features.command("explain")
@click.argument("name")
@click.option(
    "--set", "set_name", default="nine", show_default=True, help="Feature set of a feature."
)
@click.option("--lua", is_flag=True, help="Print the function library made for the set.")
@json_option
def explain_name(name: str, set_name: str, json_file: str | None, *, lua: bool) -> None:
    """Say what a feature means, or every feature of a set.

    NAME is a feature of --set, or else a feature set (by name or path).

    \b
    Examples:
      fraudstream features explain max_ratio_14d
      fraudstream features explain nine
      fraudstream features explain windows --lua
      fraudstream features explain customer_sum_7d --set windows --json -
    """
    chosen = load_feature_set(set_name)
    if name in chosen.features:
        wanted = [each for each in chosen.definitions if each.name == name]
    else:
        chosen = load_feature_set(name)
        wanted = list(chosen.definitions)
    if lua and json_file:
        raise click.UsageError("--lua and --json: choose one, the library is no JSON")
    if lua:
        click.echo(library_source(chosen))
        return
    found = [_explained(each, chosen) for each in wanted]
    if json_file:
        write_json(found, json_file)
    if json_file != "-":
        for line in found:
            _tell(line)


@features.command()
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, json_file: str | None) -> None:
    """Show in what two feature sets differ: parameters, features, order.

    Exit code 0 also where they differ; no line, and an empty list in JSON, means the same hash.

    \b
    Examples:
      fraudstream features diff nine windows
      fraudstream features diff nine my_features.toml --json -
    """
    one, two = load_feature_set(first), load_feature_set(second)
    report = SetDifference(one.hash, two.hash, differences(one, two))
    if json_file:
        write_json(report, json_file)
    if json_file == "-":
        return
    click.echo(f"{first} {one.hash} -> {second} {two.hash}")
    for each in report.differences:
        click.echo(f"  {each}")


@features.command()
@click.argument("name", default="nine")
@click.option("--customers", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--terminals", type=click.IntRange(1), default=10_000, show_default=True)
@click.option(
    "--per-day",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Transactions a day of a customer.",
)
@click.option(
    "--labelled",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Share of transactions that get a label.",
)
@json_option
def memory(
    name: str,
    json_file: str | None,
    customers: int,
    terminals: int,
    per_day: float,
    labelled: float,
) -> None:
    """State how much memory a feature set will take, before one starts.

    NAME is a feature set, by name or path. The server's own few megabytes are not counted.

    \b
    Examples:
      fraudstream features memory
      fraudstream features memory windows --customers 1000000 --per-day 3
      fraudstream features memory my_features.toml --json -
    """
    chosen = load_feature_set(name)
    at_terminal = per_day * customers / terminals
    found = memory_of(
        chosen,
        {"customer": customers, "terminal": terminals},
        {
            "customer": per_day * chosen.customer_retention_ms / DAY_MS,
            "terminal": at_terminal * chosen.terminal_retention_ms / DAY_MS,
        },
        labelled=labelled,
    )
    if json_file:
        write_json(found, json_file)
    if json_file == "-":
        return
    for each in found:
        click.echo(_memory_line(each))
    total = sum(each.bytes_total for each in found)
    click.echo(f"{total / 1e6:,.0f} MB in all for feature set {chosen.name}")


def _memory_line(found: EntityMemory) -> str:
    return (
        f"{found.count:,} {found.entity}s with {found.live_entries:,.0f} live entries: "
        f"{found.bytes_each:,} bytes each, {found.bytes_total / 1e6:,.0f} MB"
    )


def _listed(feature_set: FeatureSet) -> ListedSet:
    return ListedSet(
        feature_set.name,
        feature_set.hash,
        feature_set.features,
        feature_set.customer_retention_ms,
        feature_set.terminal_retention_ms,
    )


def _explained(feature: Feature, feature_set: FeatureSet) -> Explained:
    read = kind_of(feature).parameters
    parameters = {name: value for name, value in feature_set.parameters.items() if name in read}
    return Explained(feature.name, explain(feature), definition_text(feature), parameters)


def _tell(found: Explained) -> None:
    click.echo(f"{found.name}: {found.meaning}")
    click.echo(f"  {found.name} = {found.definition}")
    for name, value in found.parameters.items():
        click.echo(f"  {name.removesuffix('_ms')} = {parameter_text(name, value)}")
