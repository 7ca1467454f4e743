"""The place where the demo plays: a folder, an environment and servers of its own, and the data."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from fraudstream.core.errors import Refused, SettingsError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.sources import Source, event_times, parse_time_ms, read_source
from verify.demo.children import Children
from verify.demo.scenarios import HISTORY_DAYS, Scenario

HANDBOOK_FROM, HANDBOOK_TO = "2018-07-01", "2018-08-12"
"""42 days, 402,000 transactions: five weeks of history warm the features up."""
FILE_LIVE = 30_000
ALERTS_PER_1000 = 15.0
"""The new fraud makes nine frauds in a thousand: five alerts in a thousand could not hold them."""

Tell = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose: `data` None for the generator, `rate` of the live part in transactions/s.

    `live` None: as many transactions as the scenario needs, at most.
    """

    scenario: Scenario
    data: Path | None
    seed: int
    rate: int
    live: int | None
    keep: bool


class Play(msgspec.Struct, frozen=True):
    """The data: `replay` sends the same rows given `cut`; the first `history` of them are the past."""

    file: Path
    source: Source
    cut: tuple[str, ...]
    history: int
    live: int
    first_ms: int

    def day_ms(self, day: int) -> int:
        """Return when a day of the stream begins, UTC ms."""
        return self.first_ms + day * DAY_MS


def demo_settings(settings: Settings) -> Settings:
    """Return the settings of the demo: an environment and a state folder of its own."""
    folder = state_path(settings) / "demo"
    return msgspec.structs.replace(
        settings, environment="demo", state_dir=str(folder), alerts_per_1000=ALERTS_PER_1000
    )


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder of the demo for this process alone.

    Raises:
        Refused: another demo runs there. SettingsError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "demo.lock").open("a+")
    except OSError as exc:
        raise SettingsError(
            f"state_dir {folder.parent} cannot be written ({exc.strerror}): choose another with "
            "FRAUDSTREAM_STATE_DIR"
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Refused(
                f"another demo is running in {folder}: wait for its end or stop it"
            ) from exc
        yield


@contextmanager
def servers(settings: Settings, *, keep: bool, tell: Tell) -> Iterator[Settings]:
    """Run the embedded stack, empty, for the length of the block; with `keep` it stays."""
    owner = None if keep else os.getpid()
    embedded.down(settings, wipe=True)
    try:
        embedded.up(
            settings, owner_pid=owner, on_progress=lambda part, line: tell(f"{part}: {line}")
        )
        yield with_addresses(settings)
    finally:
        if not keep:
            embedded.down(settings, wipe=True)


def prepare(children: Children, folder: Path, options: Options, tell: Tell) -> Play:
    """Return the data of the demo: the user's file, or a stream generated for the scenario."""
    if options.data is not None:
        return _from_file(options.data, options.live or FILE_LIVE)
    scenario = options.scenario
    file = folder / f"generated-{scenario.name}-{options.seed}.parquet"
    tell(f"generating {scenario.days} days of transactions (seed {options.seed})")
    seed = ("--seed", str(options.seed))
    children.run("generate", "generate", "--out", str(file), "--force", *seed, *scenario.generated)
    source = read_source(file)
    times = event_times(source.table)
    first_ms = int(times[0]) // DAY_MS * DAY_MS
    history = int(np.searchsorted(times, first_ms + HISTORY_DAYS * DAY_MS))
    live = min(source.stop - history, options.live or source.stop)
    return Play(file, source, (), history, live, first_ms)


def _from_file(file: Path, live: int) -> Play:
    source = read_source(file)
    cut: tuple[str, ...] = ()
    if source.identity.startswith("handbook"):
        cut = ("--from", HANDBOOK_FROM, "--to", HANDBOOK_TO)
        bounds = [parse_time_ms(text, name) for name, text in zip(cut[::2], cut[1::2], strict=True)]
        source = read_source(file, *bounds)
    rows = source.stop - source.start
    if rows < 3 * live:
        raise SettingsError(
            f"{file} has {rows:,} transactions: the demo needs three times the {live:,} of its live "
            "part; lower --live"
        )
    first_ms = int(event_times(source.table)[source.start]) // DAY_MS * DAY_MS
    return Play(file, source, cut, rows - live, live, first_ms)
