"""The one command, `fraudstream`: reads the environment once, turns errors into exit codes."""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import click

from fraudstream import __version__
from fraudstream.clients.packages import not_installed
from fraudstream.core.errors import Ended, FraudstreamError, NotInstalled, SettingsError
from fraudstream.core.settings import load_settings

QUIET = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""onnxruntime and MLflow tell their makers of their use unless this is set before they are imported."""

COMMANDS = {
    "alerts": "monitoring.commands:alerts",
    "bench": "verify.bench.commands:bench",
    "chaos": "verify.chaos.command:chaos",
    "dead-letters": "monitoring.dead_letter_commands:dead_letters",
    "demo": "verify.demo.command:demo",
    "features": "scorer.feature_commands:features",
    "generate": "producer.commands:generate",
    "ledger": "verify.commands:ledger",
    "models": "trainer.commands:models",
    "monitor": "monitoring.monitor_command:monitor",
    "replay": "producer.replay_command:replay",
    "scorer": "scorer.commands:scorer",
    "stack": "fraudstream.stack.commands:stack",
    "topics": "fraudstream.stack.topic_commands:topics",
    "trace": "monitoring.trace_commands:trace",
    "train": "trainer.commands:train",
    "trainer": "trainer.service_command:trainer",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as exc:
            return _unable(cmd_name, exc)
        return command


def _unable(name: str, exc: ModuleNotFoundError) -> click.Command:
    """Return a command that can only say what it lacks, so that the help of all commands has it, too."""
    lacks = not_installed(exc)
    if lacks is None:
        raise exc

    def say(**_: object) -> None:
        raise NotInstalled(str(lacks)) from exc

    anything = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        callback=say,
        params=[anything],
        help="Cannot run here: a package that it needs is not installed.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fraudstream")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Override a setting.")
@click.pass_context
def root(ctx: click.Context, overrides: tuple[str, ...]) -> None:
    """Streaming fraud scoring: replay, score, alert, learn, exactly once.

    Settings come from ./fraudstream.toml, FRAUDSTREAM_* variables and --set, the later before the
    earlier. Exit codes: 0 done, 1 the product fell short, 2 wrong usage, 3 refused,
    4 another process has the place of this one.
    """
    ctx.obj = load_settings(_settings_file(Path("fraudstream.toml")), os.environ, overrides)


def _settings_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise SettingsError(
            f"{path} is not UTF-8 (byte {exc.start} is {exc.object[exc.start]:#04x}): save it as UTF-8"
        ) from exc
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read ({exc.strerror}): it must be a file") from exc


def main() -> None:
    """Run the command line; every known error becomes one sentence and its exit code."""
    os.environ.update(QUIET)
    try:
        root(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt) as exc:
        sys.exit(_stopped(exc))
    except FraudstreamError as exc:
        sys.exit(_failed(exc))
    except ModuleNotFoundError as exc:
        lacks = not_installed(exc)
        if lacks is None:
            raise
        sys.exit(_failed(lacks))


def _failed(exc: FraudstreamError) -> int:
    click.echo(f"error: {exc}", err=True)
    return exc.exit_code


def _stopped(exc: BaseException) -> int:
    """Return the exit status of a command that was stopped: by Ctrl-C, or as its `Ended` says."""
    reason = exc.__cause__ if isinstance(exc, click.Abort) else exc
    if isinstance(reason, Ended):
        with suppress(OSError):  # the terminal may be gone
            click.echo(f"stopped: {reason}", err=True)
        return reason.exit_code
    click.echo("stopped", err=True)
    return 128 + signal.SIGINT


if __name__ == "__main__":
    main()
