"""The environment of the Quix Streams peer, made once: it needs an older confluent-kafka than the product."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fraudstream.core.errors import DependencyUnreachable, FraudstreamError
from fraudstream.stack import child
from fraudstream.stack.kafka_jars import folders
from fraudstream.stack.locks import exclusive

WAIT_S = 600.0
COMPLETE = ".complete"
"""Written last, so that what an interrupted installation leaves is made anew."""


def python_with(lock: Path, progress: Callable[[str], None]) -> Path:
    """Return the Python of the environment with the packages of `lock`; the first call makes it (a minute).

    Raises:
        DependencyUnreachable: it could not be made; says what pip said.
        FraudstreamError: no folder can be written, or another process is making it for too long.
    """
    environment = _folder(lock)
    python = environment / "bin" / "python"
    with exclusive(environment.with_suffix(".lock"), wait_s=WAIT_S):
        if not (python.exists() and (environment / COMPLETE).exists()):
            progress(f"making the environment of Quix Streams in {environment} (once, a minute)")
            shutil.rmtree(environment, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(environment))
            pip = ("-m", "pip", "install", "--disable-pip-version-check", "--quiet")
            _run(str(python), *pip, "--require-hashes", "--no-deps", "-r", str(lock))
            (environment / COMPLETE).touch()
    return python


def _folder(lock: Path) -> Path:
    """Return where the environment is or will be: beside Kafka's jars, another one for each lock file."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()[:12]
    for jars in folders():
        try:
            jars.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(jars.parent, os.W_OK):
            return jars.parent / f"quix-streams-{digest}"
    raise FraudstreamError(
        f"no folder for the environment of Quix Streams can be written ({folders()[0].parent}): "
        "make it writable, or leave the peers out with --no-peers"
    )


def _run(*command: str) -> None:
    dies_with_us = [sys.executable, child.__file__, str(os.getpid())]
    done = subprocess.run(  # noqa: S603 - our own command line
        [*dies_with_us, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DependencyUnreachable(
            f"the environment of Quix Streams could not be made ({said[-1] if said else command}): check "
            "network, proxy and disk space and start again, or leave the peers out with --no-peers"
        )
