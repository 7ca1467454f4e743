"""`fraudstream dead-letters list|show|replay`: what could not be scored, why, and once more after a fix."""

import getpass
import sys
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

import click

from fraudstream.clients.dead_letter_log import (
    Resender,
    most_bytes_again,
    read_letters,
    read_replays,
)
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.dead_letters import Letter, Replay, counts_by_kind
from fraudstream.core.errors import DEAD_LETTER_KINDS
from fraudstream.core.printable import printable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack.addresses import with_addresses
from monitoring.dead_letters import (
    WHAT_TO_DO,
    ListReport,
    Plan,
    ReplayReport,
    Shown,
    Wanted,
    check_found,
    check_sent,
    name_of,
    plan,
    shown,
)
from monitoring.output import moment, until_reader_leaves

F = TypeVar("F", bound=Callable[..., object])
REASON_WIDTH = 100


class Position(click.ParamType):
    """A position in topic transactions."""

    name = "position"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as PARTITION-OFFSET."""
        found = name_of(value)
        if found is None:
            self.fail(f"{printable(value)} is not written PARTITION-OFFSET, as 3-5121", param, ctx)
        return found


KIND = click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(DEAD_LETTER_KINDS), help="Of this kind."
)
PARTITION = click.option(
    "--partition",
    "partitions",
    multiple=True,
    type=click.IntRange(min=0),
    help="From this partition.",
)
SINCE = click.option(
    "--since",
    type=click.DateTime(),
    help="Dead since this time (UTC), as 2026-03-01 or 2026-03-01T12:00:00.",
)
UNTIL = click.option("--until", type=click.DateTime(), help="Dead before this time (UTC).")


def _filters(command: F) -> F:
    """Give a command the options by which dead letters are chosen."""
    for option in (UNTIL, SINCE, PARTITION, KIND):
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """Dead letters: records that could not be scored, each with the reason."""


@dead_letters.command("list")
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Show the newest so many.",
)
@json_option
@click.pass_obj
def list_letters(  # noqa: PLR0913 - one for each option
    settings: Settings,
    *,
    kinds: tuple[str, ...],
    partitions: tuple[int, ...],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    json_file: str | None,
) -> None:
    """Count dead letters by kind and show the newest: position in transactions, when, reason.

    \b
    Examples:
      fraudstream dead-letters list
      fraudstream dead-letters list --kind poison --since 2026-03-01 --limit 10
      fraudstream dead-letters list --json -
    """
    settings = with_addresses(settings, ["kafka"])
    wanted = _wanted(kinds, partitions, since, until)
    replays = read_replays(settings)
    report = _report(settings, filter(wanted.has, read_letters(settings)), replays, limit)
    with until_reader_leaves():
        if json_file:
            write_json(report, json_file)
        if json_file != "-":
            _print_list(report)


@dead_letters.command("show")
@click.argument("position", type=Position())
@json_option
@click.pass_obj
def show_letter(settings: Settings, *, position: str, json_file: str | None) -> None:
    """Show one dead letter with its bytes, and say what can be done.

    POSITION is PARTITION-OFFSET in topic transactions, as `list` and `fraudstream trace` show it. Bytes that
    are no text, or that would act on the terminal, are escaped.

    \b
    Examples:
      fraudstream dead-letters show 3-5121
      fraudstream dead-letters show 3-5121 --json -
    """
    settings = with_addresses(settings, ["kafka"])
    wanted = Wanted(names=frozenset([position]))
    found = list(filter(wanted.has, read_letters(settings)))
    check_found([position], found, settings.environment)
    letter = shown(found[0], read_replays(settings))
    with until_reader_leaves():
        if json_file:
            write_json(letter, json_file)
        if json_file != "-":
            _print_letter(letter)


@dead_letters.command("replay")
@_filters
@click.option(
    "--position", "names", multiple=True, type=Position(), help="This one; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="All that were not sent again yet.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--why", default="dead-letters replay", show_default=True, help="Reason, for the audit topic."
)
@json_option
@click.pass_obj
def replay_letters(  # noqa: PLR0913 - one for each option
    settings: Settings,
    *,
    kinds: tuple[str, ...],
    partitions: tuple[int, ...],
    since: datetime | None,
    until: datetime | None,
    names: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    yes: bool,
    why: str,
    json_file: str | None,
) -> None:
    """Send the records of dead letters to transactions again, each once, however often this runs.

    What was sent stands in the audit topic, in the same Kafka transaction; `fraudstream trace` shows it. The
    record goes to its former partition with key, value and headers as received, and the header
    dead_letter_of.

    \b
    Examples:
      fraudstream dead-letters replay --position 3-5121
      fraudstream dead-letters replay --kind poison --dry-run
      fraudstream dead-letters replay --all --yes --why "model 12 withdrawn"
    """
    wanted = _wanted(kinds, partitions, since, until, names)
    if everything == (wanted != Wanted()):
        raise click.UsageError(
            "say which: --position, --kind, --partition, --since, --until, or --all"
        )
    settings = with_addresses(settings, ["kafka"])
    found = list(filter(wanted.has, read_letters(settings)))
    check_found(names, found, settings.environment)
    resender = None if dry_run else Resender(settings)
    replays = read_replays(settings) if resender is None else resender.sent_before
    most_bytes = most_bytes_again(settings) if resender is None else resender.most_bytes
    todo = plan(found, replays, (topic_name(settings.environment, "transactions"), most_bytes))
    if resender is not None and todo.to_send:
        _confirm(len(todo.to_send), yes=yes)
        for count in resender.send(todo.to_send, actor=getpass.getuser(), why=why):
            click.echo(f"sent {count:,}", err=True)
    with until_reader_leaves():
        _tell_replay(settings, todo, dry_run=dry_run, json_file=json_file)
    if not dry_run:
        check_sent(names, todo.impossible)


def _wanted(
    kinds: Iterable[str],
    partitions: Iterable[int],
    since: datetime | None,
    until: datetime | None,
    names: Iterable[str] = (),
) -> Wanted:
    return Wanted(
        names=frozenset(names),
        kinds=frozenset(kinds),
        partitions=frozenset(partitions),
        since_ms=_ms(since),
        until_ms=_ms(until),
    )


def _ms(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp() * 1000)


def _confirm(count: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{count:,} records would be sent again: say --yes, or --dry-run to look"
        )
    click.confirm(f"send {count:,} records to transactions again?", abort=True, err=True)


def _report(
    settings: Settings, letters: Iterable[Letter], replays: dict[str, Replay], limit: int
) -> ListReport:
    counts: dict[str, int] = {}
    newest: deque[Letter] = deque(maxlen=limit)
    replayed = 0
    for letter in sorted(letters, key=lambda each: each.at_ms):
        for kind, count in counts_by_kind([letter]).items():
            counts[kind] = counts.get(kind, 0) + count
        replayed += letter.name in replays
        newest.append(letter)
    return ListReport(
        environment=settings.environment,
        total=sum(counts.values()),
        by_kind=counts,
        replayed=replayed,
        letters=[shown(each, replays) for each in newest],
    )


def _print_list(report: ListReport) -> None:
    for each in report.letters:
        again = f", sent again {moment(each.replayed_at_ms)}" if each.replayed_at_ms else ""
        reason = each.reason[:REASON_WIDTH]
        click.echo(f"{each.position:>12}  {moment(each.at_ms)}  {each.kind:<17}  {reason}{again}")
    kinds = ", ".join(f"{printable(kind)} {count:,}" for kind, count in report.by_kind.items())
    hidden = report.total - len(report.letters)
    older = f"; {hidden:,} older ones not shown (--limit)" if hidden else ""
    click.echo(
        f"{report.total:,} dead letters of {report.environment}"
        + (f": {kinds}; {report.replayed:,} sent again{older}" if report.total else "")
    )


def _print_letter(letter: Shown) -> None:
    again = "no"
    if letter.replayed_at_ms is not None:
        again = f"{moment(letter.replayed_at_ms)} UTC by {printable(letter.replayed_by or '')}"
    headers = ", ".join(f"{name}={value or ''}" for name, value in letter.headers)
    place = f"{letter.dead_letter_partition}:{letter.dead_letter_offset}"
    cut = letter.size_bytes > len(letter.text.encode()) and letter.size_bytes > 0
    rows = (
        ("position", f"transactions {letter.position} (partition-offset)"),
        ("kind", letter.kind),
        ("reason", letter.reason),
        ("dead since", f"{moment(letter.at_ms)} UTC, dead-letters {place} (partition:offset)"),
        ("key", "none" if letter.key is None else letter.key),
        ("headers", headers or "none"),
        ("bytes", f"{letter.size_bytes:,}" + (", the beginning of them here" if cut else "")),
        ("value", letter.text or "—"),
        ("sent again", again),
        ("what to do", WHAT_TO_DO.get(letter.kind, "this release does not know the kind")),
    )
    for name, text in rows:
        click.echo(f"{name:<12}{text}")


def _tell_replay(settings: Settings, todo: Plan, *, dry_run: bool, json_file: str | None) -> None:
    report = ReplayReport(
        environment=settings.environment,
        dry_run=dry_run,
        sent=[] if dry_run else [each.name for each in todo.to_send],
        sent_before=todo.sent_before,
        impossible=todo.impossible,
    )
    if json_file:
        write_json(report, json_file)
    if json_file == "-":
        return
    for name, reason in todo.impossible.items():
        click.echo(f"{name} is not sent: {reason}")
    verb = "would be sent" if dry_run else "sent"
    click.echo(
        f"{len(todo.to_send):,} {verb} again, {len(todo.sent_before):,} were sent before, "
        f"{len(todo.impossible):,} cannot be"
    )
    if dry_run:
        for letter in todo.to_send:
            click.echo(f"{letter.name}  {letter.kind}  {letter.size_bytes:,} bytes")
