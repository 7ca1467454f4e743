"""Kafka's jars: fetched once through jgo, each checked against the committed list of SHA-256 digests.

`python -m fraudstream.stack.kafka_jars` fetches what is missing and says so; the embedded stack checks the
digests again at each start. No Java, no Maven: the committed list is the resolved class path.
"""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import click
import msgspec

from fraudstream.core.errors import (
    DependencyUnreachable,
    FraudstreamError,
    Refused,
    SettingsError,
)
from fraudstream.stack.locks import exclusive

KAFKA_VERSION = "4.2.1"
"""4.3.0 to 4.4.0 can lose the end of a transaction when their only broker is killed (ADR 0025)."""
INSTALL_COMMAND = f"{sys.executable} -m fraudstream.stack.kafka_jars"
ATTEMPTS = 3
INSTALL_LOCK_WAIT_S = 300.0

Progress = Callable[[int, int], None]
"""Called with the number of jars that are ready, and of all."""


class Jar(msgspec.Struct, frozen=True):
    """One line of the committed list: the SHA-256 and the place in a Maven repository's layout."""

    sha256: str
    path: str


def listed_jars() -> tuple[Jar, ...]:
    """Return the committed list: every jar of the class path."""
    text = files("fraudstream.stack").joinpath("kafka_jars.sha256").read_text()
    return tuple(Jar(*line.split()) for line in text.splitlines())


def folders() -> tuple[Path, ...]:
    """Return where the jars may be: the user's cache, else the folder of this Python installation."""
    name = f"kafka-{KAFKA_VERSION}"
    inside_environment = Path(sys.prefix) / "share" / "fraudstream" / name
    try:
        return (Path.home() / ".cache" / "fraudstream" / name, inside_environment)
    except RuntimeError:
        return (inside_environment,)


def checked_folder(folder: Path | None = None, jars: Sequence[Jar] | None = None) -> Path:
    """Return `folder`, by default the first that has all jars, with every digest checked (60 ms).

    Raises:
        FraudstreamError: jars are missing; names the folder and the command that fetches them.
        Refused: a jar's digest is not the committed one; names the jar.
    """
    wanted = listed_jars() if jars is None else jars
    candidates = folders() if folder is None else (folder,)
    for candidate in candidates:
        if all((candidate / jar.path).is_file() for jar in wanted):
            for jar in wanted:
                _check(jar, candidate)
            return candidate
    raise FraudstreamError(
        f"Kafka's jars are missing in {candidates[0]}: fetch them with `{INSTALL_COMMAND}`"
    )


def class_path(folder: Path) -> str:
    """Return Java's class path: the committed jars of `folder` and nothing else that lies there."""
    return ":".join(str(folder / jar.path) for jar in listed_jars())


def install(
    folder: Path | None = None,
    jars: Sequence[Jar] | None = None,
    *,
    on_progress: Progress = lambda ready, total: None,
) -> Path:
    """Fetch what is missing or damaged in `folder` and return it; a second call finds all there.

    Each jar is downloaded beside the folder, checked, then renamed: what was interrupted is fetched again.

    Raises:
        SettingsError: no folder can be written.
        DependencyUnreachable: the repository does not answer.
        Refused: what was downloaded has not the committed digest.
    """
    wanted = listed_jars() if jars is None else jars
    target = _writable(folders() if folder is None else (folder,))
    with exclusive(target / ".lock", wait_s=INSTALL_LOCK_WAIT_S):
        missing = [jar for jar in wanted if not _is_right(jar, target)]
        ready = len(wanted) - len(missing)
        on_progress(ready, len(wanted))
        if missing:
            _discard_start_cache(target)
        with _partial_folder(target) as partial:
            _fetch_all(missing, target, partial, lambda n: on_progress(ready + n, len(wanted)))
    return target


def _discard_start_cache(folder: Path) -> None:
    """Remove what kafka_aot.py made: Java would refuse it for jars with another time, without a word."""
    for cache in folder.glob("*.aot"):
        cache.unlink()


def _fetch_all(
    missing: Sequence[Jar], target: Path, partial: Path, on_fetched: Callable[[int], None]
) -> None:
    """Download eight at a time; `on_fetched` is called with how many are done."""
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(_fetch, jar, target, partial) for jar in missing]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                on_fetched(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(jar: Jar, target: Path, partial: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download(jar, partial)
            break
        except OSError as exc:
            (partial / jar.path).unlink(missing_ok=True)
            if attempt == ATTEMPTS:
                raise _unreachable(jar, exc) from exc
        except RuntimeError as exc:
            raise _unreachable(jar, exc) from exc
    _check(jar, partial)
    (target / jar.path).parent.mkdir(parents=True, exist_ok=True)
    (partial / jar.path).replace(target / jar.path)


def _download(jar: Jar, partial: Path) -> None:
    """Download one jar with jgo into `partial`, honouring repositories of jgo's own configuration."""
    from jgo.config import GlobalSettings  # noqa: PLC0415 - only an installation needs jgo
    from jgo.maven import MavenContext  # noqa: PLC0415

    *group, artifact, version, _ = jar.path.split("/")
    context = MavenContext(repo_cache=partial, timeout=30)
    context.remote_repos |= GlobalSettings.load().repositories
    context.project(".".join(group), artifact).at_version(version).artifact().resolve()


def _unreachable(jar: Jar, exc: Exception) -> DependencyUnreachable:
    return DependencyUnreachable(
        f"cannot download {Path(jar.path).name} from Maven Central ({_innermost(exc)}): "
        "check the network and proxy settings and the free disk space, then run the same command again"
    )


def _innermost(exc: object) -> object:
    """Return the cause under the layers of requests and urllib3, each of which repeats the next one."""
    inner = getattr(exc, "reason", None) or getattr(exc, "original_error", None)
    if inner is None and isinstance(exc, Exception) and exc.args:
        inner = exc.args[0]
    return _innermost(inner) if isinstance(inner, Exception) else exc


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_right(jar: Jar, folder: Path) -> bool:
    path = folder / jar.path
    return path.is_file() and _digest(path) == jar.sha256


def _check(jar: Jar, folder: Path) -> None:
    found = _digest(folder / jar.path)
    if found != jar.sha256:
        raise Refused(
            f"{folder / jar.path} has SHA-256 {found}, the committed list says {jar.sha256}: "
            f"fetch it anew with `{INSTALL_COMMAND}`; if it happens again, do not trust the source"
        )


def _writable(candidates: Sequence[Path]) -> Path:
    """Return the first folder that can be written, made if need be."""
    reasons = []
    for candidate in candidates:
        try:
            candidate.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reasons.append(f"{candidate}: {exc.strerror}")
            continue
        if os.access(candidate, os.W_OK):
            return candidate
        reasons.append(f"{candidate}: not writable")
    raise SettingsError(f"no folder for Kafka's jars can be written ({'; '.join(reasons)})")


@contextmanager
def _partial_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of `target`; those of interrupted downloads are removed."""
    for old in target.glob(".partial-*"):
        shutil.rmtree(old, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> None:
    """Fetch the jars with visible progress; the step of deploy/install.sh."""

    def show(ready: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rKafka {KAFKA_VERSION}: {ready} of {total} jars ", err=True, nl=False)

    try:
        folder = install(on_progress=show)
    except FraudstreamError as exc:
        click.echo(f"\nerror: {exc}", err=True)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    click.echo(f"\rKafka {KAFKA_VERSION} is complete in {folder}", err=True)


if __name__ == "__main__":
    main()
