"""`fraudstream ledger --watch`: the live line, what is named, and how the watch ends."""

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import click
import msgspec
from rich.console import Console

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import write_json
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from monitoring.output import until_reader_leaves
from verify.books import Books
from verify.ledger import Ledger
from verify.ledger_metrics import HOST, LedgerMetrics, served
from verify.ledger_text import Unbalanced, difference, sentence
from verify.live_log import LiveLog
from verify.watch import Backoff, Watch

SHOWN_EACH_S = 1.0
LAST_ROUND_S = 10.0
"""After `--for` seconds one more round is awaited, at most so long."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command was asked for; no `for_s` means until Ctrl-C, no `metrics_port` no metrics."""

    json_file: str | None = None
    for_s: float | None = None
    metrics_port: int | None = None


class Screen:
    """The balance once a second: one line that changes on a terminal, else a line each time."""

    def __init__(self, *, to_stderr: bool) -> None:
        console = Console(stderr=to_stderr)
        self._file = sys.stderr if to_stderr else sys.stdout
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._console = console
        self._open = False

    def show(self, text: str) -> None:
        """Show the balance as of now."""
        if not self._live:
            click.echo(text, file=self._file)
            return
        # A line that wraps could not be taken back.
        click.echo(f"\r\x1b[2K{text[: self._console.width - 1]}", file=self._file, nl=False)
        self._open = True

    def say(self, text: str) -> None:
        """Say something on standard error that stays."""
        if self._open:
            click.echo("\r\x1b[2K", file=self._file, nl=False)
            self._open = False
        click.echo(text, err=True)

    def close(self, text: str) -> None:
        """Show the last balance as a whole line."""
        if self._open:
            click.echo("\r\x1b[2K", file=self._file, nl=False)
        click.echo(text, file=self._file)


def watch_ledger(settings: Settings, wanted: Wanted) -> None:
    """Follow the topics of an environment until Ctrl-C or for a time; settings have the address of Kafka.

    Raises:
        Unbalanced: something was lost or doubled at any time of the watch.
        DependencyUnreachable: no broker answers at the start.
        Refused: a topic does not exist, or was made anew meanwhile.
        SettingsError: the port of the metrics is taken.
    """
    screen = Screen(to_stderr=wanted.json_file == "-")
    books = Books(screen.say)
    with ExitStack() as stack:
        log = stack.enter_context(LiveLog(settings))
        watch = Watch(log, f"{settings.environment}.scorer", books)
        metrics = LedgerMetrics(lambda: monotonic_s() - watch.judged_s)
        if wanted.metrics_port is not None:
            port = stack.enter_context(served(metrics, wanted.metrics_port))
            screen.say(f"metrics at http://{HOST}:{port}/metrics")
        follow = Follow(watch, wanted.for_s, screen, metrics.show)
        try:
            with until_reader_leaves():
                follow.run()
        except KeyboardInterrupt:
            _end(books, wanted, screen)
            raise
    _end(books, wanted, screen)


def _end(books: Books, wanted: Wanted, screen: Screen) -> None:
    """Report; raises `Unbalanced` if there was a difference."""
    report = books.ledger()
    with until_reader_leaves():
        screen.close(sentence(report))
        if wanted.json_file:
            write_json(report, wanted.json_file)
    if not report.balanced or books.late:
        late = f"; {books.late} results came after their offsets were committed"
        raise Unbalanced(difference(report) + (late if books.late else ""))


class Follow:
    """The loop of a watch: step, show each second, wait while the broker is away."""

    def __init__(
        self,
        watch: Watch,
        for_s: float | None,
        screen: Screen,
        publish: Callable[[Ledger], None],
    ) -> None:
        self._watch = watch
        self._screen = screen
        self._publish = publish
        self._until_s = None if for_s is None else monotonic_s() + for_s
        self._shown_s = monotonic_s()
        self._backoff = Backoff()
        self._pause = threading.Event()

    def run(self) -> None:
        """Go on until the time is over and a round that began after it is judged; raises as `Watch`."""
        while not self._is_over():
            self._step()
            ledger = self._watch.books.ledger()
            self._publish(ledger)
            if monotonic_s() - self._shown_s >= SHOWN_EACH_S:
                self._shown_s = monotonic_s()
                self._screen.show(sentence(ledger))

    def _is_over(self) -> bool:
        until_s = self._until_s
        if until_s is None or monotonic_s() < until_s:
            return False
        return self._watch.judged_s >= until_s or monotonic_s() > until_s + LAST_ROUND_S

    def _step(self) -> None:
        try:
            self._watch.step()
        except DependencyUnreachable as exc:
            if not self._backoff.away:
                self._screen.say(f"{exc}: what was read is kept, the ledger goes on when it does")
            self._pause.wait(self._backoff.failed())
            return
        if self._backoff.away:
            self._screen.say("Kafka answers again")
            self._backoff.answered()
