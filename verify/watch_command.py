"""`fraudstream ledger --watch`: the live line, what is named, and how the watch ends."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

import click
import msgspec
from rich.console import Console

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.service_web import serving
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, SettingsError
from fraudstream.core.settings import Settings
from monitoring.output import until_reader_leaves
from verify.books import Books
from verify.demo.alarm import Alarm
from verify.ledger import Ledger
from verify.ledger_metrics import LedgerMetrics
from verify.ledger_text import Unbalanced, difference, live_line, sentence
from verify.live_log import LiveLog
from verify.watch import Backoff, Watch

SHOWN_EACH_S = 1.0
LAST_ROUND_S = 30.0
"""After `--for` seconds one more round is awaited, at most so long after all is read."""
STUCK_S = 10.0
"""A round in which nothing could be read for so long is told of."""

BRIEFLY_S = 1.0
"""So long a broker may be away, as one that looks for the group's coordinator, without a word."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command was asked for; no `for_s` means until Ctrl-C, no `metrics_port` no metrics."""

    json_file: str | None = None
    for_s: float | None = None
    metrics_port: int | None = None


class Moment(Ledger, frozen=True, kw_only=True):
    """The ledger at `at_ms`, UTC; all that was committed `age_ms` before that is judged."""

    at_ms: int
    age_ms: int


@contextmanager
def json_lines(target: str) -> Iterator[Callable[[object], None]]:
    """Yield what writes one JSON object a line, at once: into a file from its beginning on, - for output.

    Raises:
        SettingsError: the file cannot be written (any more), also by what is yielded.
    """
    file: int | None = None
    try:
        if target != "-":
            file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as exc:
        raise _refused(target, exc) from exc

    def write(report: object) -> None:
        line = msgspec.json.encode(report) + b"\n"
        try:
            click.echo(line, nl=False) if file is None else os.write(file, line)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise _refused(target, exc) from exc

    try:
        yield write
    finally:
        if file is not None:
            os.close(file)


def _refused(target: str, exc: OSError) -> SettingsError:
    return SettingsError(f"--json {target} cannot be written ({exc.strerror})")


class Screen:
    """The balance once a second on standard output: one line that changes on a terminal, else a line each.

    `quiet` shows none, since something else goes there.
    """

    def __init__(self, *, quiet: bool) -> None:
        console = Console()
        self._file: TextIO = sys.stdout
        self._quiet = quiet
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._console = console
        self._open = False

    def show(self, report: Ledger, remark: str) -> None:
        """Show the balance as of now, and what it does not know yet."""
        if self._quiet:
            return
        if not self._live:
            click.echo(sentence(report) + remark, file=self._file)
            return
        # A line that wraps could not be taken back.
        text = (live_line(report) + remark)[: self._console.width - 1]
        click.echo(f"\r\x1b[2K{text}", file=self._file, nl=False)
        self._open = True

    def say(self, text: str) -> None:
        """Say something on standard error that stays."""
        self._wipe()
        click.echo(text, err=True)

    def close(self, report: Ledger) -> None:
        """Show the last balance as a whole line."""
        self._wipe()
        if not self._quiet:
            click.echo(sentence(report), file=self._file)

    def _wipe(self) -> None:
        if self._open:
            click.echo("\r\x1b[2K", file=self._file, nl=False)
            self._open = False


def watch_ledger(settings: Settings, wanted: Wanted) -> None:
    """Follow the topics of an environment until Ctrl-C or for a time; settings have the address of Kafka.

    Raises:
        Unbalanced: something was lost or doubled at any time of the watch.
        DependencyUnreachable: no broker answers, at the start or for two minutes.
        Refused: a topic does not exist, or was made anew meanwhile.
        SettingsError: the port of the metrics is taken, or the file cannot be written.
        FraudstreamError: the topics cannot be read, or the time was over before all was judged.
    """
    screen = Screen(quiet=wanted.json_file == "-")
    books = Books(screen.say)
    with ExitStack() as stack:
        stack.enter_context(Alarm())
        listeners: list[Callable[[Moment], None]] = []
        if wanted.json_file:
            listeners.append(stack.enter_context(json_lines(wanted.json_file)))
        log = stack.enter_context(LiveLog(settings))
        watch = Watch(log, f"{settings.environment}.scorer", books)
        if wanted.metrics_port is not None:
            metrics = LedgerMetrics(watch)
            stack.enter_context(
                serving(metrics, wanted.metrics_port, settings.web_host, screen.say)
            )
            listeners.append(metrics.show)
        follow = Follow(watch, wanted.for_s, screen, listeners)
        try:
            with until_reader_leaves():
                follow.run()
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be gone
                follow.close()
            _check(books)
            raise
        with until_reader_leaves():
            follow.close()
        _check(books)


def _check(books: Books) -> None:
    if books.named:
        late = f"; {books.late} results came after their offsets were committed"
        raise Unbalanced(difference(books.ledger()) + (late if books.late else ""))


class Follow:
    """The loop of a watch: step, show each second, wait while the broker is away."""

    def __init__(
        self,
        watch: Watch,
        for_s: float | None,
        screen: Screen,
        listeners: list[Callable[[Moment], None]],
    ) -> None:
        self._watch = watch
        self._screen = screen
        self._listeners = listeners
        self._until_s = None if for_s is None else monotonic_s() + for_s
        self._shown_s = monotonic_s()
        self._moment = self._now()
        self._unread, self._unread_since_s = 0, monotonic_s()
        self._backoff = Backoff()
        self._told_away = False
        self._pause = threading.Event()

    def run(self) -> None:
        """Go on until the time is over and a round that began after it is judged.

        Raises:
            FraudstreamError: as `Watch.step`, or the last round could not be judged.
        """
        while not self._is_over():
            self._step()
            self._moment = self._now()
            if monotonic_s() - self._shown_s >= SHOWN_EACH_S:
                self._shown_s = monotonic_s()
                self._publish()
                self._screen.show(self._moment, self._remark())

    def close(self) -> None:
        """Tell the last balance that was whole; the step that was interrupted is not in it."""
        self._publish()
        self._screen.close(self._moment)

    def _now(self) -> Moment:
        age_s = monotonic_s() - self._watch.judged_s
        fields = msgspec.structs.asdict(self._watch.books.ledger())
        return Moment(**fields, at_ms=now_ms(), age_ms=round(age_s * 1000))

    def _publish(self) -> None:
        for listen in self._listeners:
            listen(self._moment)

    def _remark(self) -> str:
        """Return what the balance does not know yet; say once that it does not come to know it."""
        unread, before = self._watch.to_read(), self._unread
        now_s = monotonic_s()
        if not unread or unread != before:
            self._unread, self._unread_since_s = unread, now_s
        elif now_s - self._unread_since_s > STUCK_S:
            self._unread_since_s = now_s
            self._screen.say(
                f"nothing could be read for {STUCK_S:.0f} s: a transaction is open in the topics, and "
                "nothing committed since is judged until it ends"
            )
        return f"; {unread:,} to read" if unread else ""

    def _is_over(self) -> bool:
        if self._until_s is None or monotonic_s() < self._until_s:
            return False
        if self._watch.has_judged and self._watch.judged_s >= self._until_s:
            return True
        last_s = self._until_s if self._watch.has_judged else max(self._until_s, self._watch.read_s)
        if monotonic_s() > last_s + LAST_ROUND_S:
            raise FraudstreamError(
                f"what was committed in the last {monotonic_s() - self._watch.judged_s:.0f} s could not be "
                "judged: Kafka does not answer, or a transaction is open in the topics"
            )
        return False

    def _step(self) -> None:
        began_s = monotonic_s()
        try:
            self._watch.step()
        except DependencyUnreachable as exc:
            wait_s = self._backoff.failed(began_s, exc)
            if monotonic_s() - self._backoff.since_s > BRIEFLY_S:
                self._tell_away(str(exc))
            self._pause.wait(wait_s)
            return
        self._backoff.answered()
        self._watch.away = ""
        if self._told_away:
            self._told_away = False
            self._screen.say("Kafka answers again")

    def _tell_away(self, why: str) -> None:
        self._watch.away = why
        if not self._told_away:
            self._told_away = True
            self._screen.say(f"{why}: what was read is kept, the ledger goes on when it does")
