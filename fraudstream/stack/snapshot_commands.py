"""`fraudstream features snapshot|restore`: copies of the feature state, and back."""

from pathlib import Path

import click

from fraudstream.clients.clock import now_ms
from fraudstream.clients.feature_snapshot import (
    restore_snapshot,
    snapshot_name,
    snapshots,
    take_snapshot,
)
from fraudstream.clients.feature_state import open_state
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.clients.set_log import SetLog, find_set
from fraudstream.clients.snapshot_file import check_file
from fraudstream.core.errors import Refused, SettingsError
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.settings import Settings, snapshot_folder
from fraudstream.core.topics import topic_name
from fraudstream.stack.addresses import with_addresses


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--keep",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Newest snapshots that stay in the state folder; those in a FILE of yours are left alone.",
)
@click.option(
    "--feature-set",
    "set_name",
    metavar="NAME",
    help="Set to copy, by name or hash [default: the one that went live first].",
)
@json_option
@click.pass_obj
def snapshot(
    settings: Settings, file: Path | None, keep: int, set_name: str | None, json_file: str | None
) -> None:
    """Copy the features of a set into a file; scoring waits meanwhile.

    A rebuild begins with the newest snapshot in the state folder, instead of the beginning of the log.

    \b
    Examples:
      fraudstream features snapshot
      fraudstream features snapshot --keep 7 --feature-set windows
      fraudstream features snapshot before-the-move.features
    """
    settings = with_addresses(settings)
    chosen = find_set(settings, set_name)
    now = now_ms()
    folder = snapshot_folder(settings)
    target = file or folder / snapshot_name(now, chosen)
    if target.exists():
        raise SettingsError(f"{target} exists: choose another name")
    if file is None:
        folder.mkdir(parents=True, exist_ok=True)
    state = open_state(settings, chosen)
    taken = take_snapshot(state, target, environment=settings.environment, now_ms=now)
    if file is None:
        for old in snapshots(folder, chosen)[keep:]:
            old.unlink()
    if json_file:
        write_json(taken, json_file)
    else:
        click.echo(
            f"{taken.file}: {taken.keys} keys, {taken.bytes} bytes; scoring waited {taken.pause_s} s"
        )


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_obj
def restore(settings: Settings, file: Path, json_file: str | None) -> None:
    """Put a snapshot in the place of its set's features; the scorers roll it forward from the log.

    \b
    Examples:
      fraudstream features restore before-the-move.features
    """
    settings = with_addresses(settings)
    names = {name: topic_name(settings.environment, name) for name in ("transactions", "feedback")}
    facts = topic_facts(settings, list(names.values()))
    topics = {name: facts[full].topic_id for name, full in names.items()}
    done = restore_snapshot(open_state(settings, _live_set_of(settings, file)), file, topics)
    if json_file:
        write_json(done, json_file)
    else:
        click.echo(
            f"restored {done.keys} keys of {done.file}; a scorer rolls them forward before it goes on"
        )


def _live_set_of(settings: Settings, file: Path) -> FeatureSet:
    """Return the live set that a snapshot is of.

    Raises:
        Refused: the snapshot is damaged, or its set is not live: no scorer would roll it forward.
    """
    wanted = check_file(file).feature_set
    first = find_set(settings)
    found = {first.hash: first, **SetLog(settings).refresh().live}.get(wanted)
    if found is None:
        raise Refused(
            f"snapshot {file} is of feature set {wanted}, which is not live here (look with `fraudstream "
            "features sets`): fill it with `fraudstream features fill`"
        )
    return found
