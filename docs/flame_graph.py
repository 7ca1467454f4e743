"""Draws docs/flame_graph.svg, a worker on a backlog: `.venv/bin/python docs/flame_graph.py`.

py-spy is not among the product's dependencies: have it on the PATH, or say where it is with --py-spy.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import click

from verify.bench.backlog import fill, send
from verify.bench.model import bench_model, serve
from verify.bench.pipeline import own_stack
from verify.bench.processes import working_on
from verify.bench.rate import Watched, committed_anew
from verify.demo.children import Children
from verify.ledger import Log

PICTURE = Path(__file__).parent / "flame_graph.svg"
BACKLOG = 600_000
FOREIGN = re.compile(r"/[\w./@+-]*/site-packages/|/[\w./@+-]*/lib/python3[.\d]*/")


@click.command()
@click.option("--py-spy", "py_spy", default="py-spy", show_default=True, help="The program.")
@click.option("--seconds", type=click.IntRange(1), default=10, show_default=True)
def main(py_spy: str, seconds: int) -> None:
    """Score a backlog on servers of our own and look at the worker meanwhile."""
    found = shutil.which(py_spy)
    if found is None:
        raise click.ClickException(
            f"{py_spy} is not there: pip install py-spy, in an environment of its own"
        )
    with own_stack() as settings:
        load, features = fill(settings)
        serve(settings, bench_model(features))
        send(settings, load, BACKLOG)
        with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
            children.start("scorer", "scorer")
            with Log(settings) as log:
                committed_anew(log, _worker(settings.environment, children))
            (process,) = working_on(settings, " scorer")
            drawn = draw(found, process.pid, seconds)
    PICTURE.write_text(FOREIGN.sub("", drawn).replace(f"{Path.cwd()}/", ""))


def draw(py_spy: str, pid: int, seconds: int) -> str:
    """Return the picture of a process."""
    with tempfile.NamedTemporaryFile(suffix=".svg") as file:
        how = ["--rate", "250", "--threads", "--format", "flamegraph", "--output", file.name]
        command = [py_spy, "record", "--pid", str(pid), "--duration", str(seconds), *how]
        subprocess.run(command, check=True)  # noqa: S603 - the program that was asked for
        return Path(file.name).read_text()


def _worker(environment: str, children: Children) -> Watched:
    return Watched(f"{environment}.scorer", "scorer", children.check)


if __name__ == "__main__":
    main()
