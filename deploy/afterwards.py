"""What `make up` looks at last: what says a container that is not ready, has Grafana our password.

Plain Python, nothing installed: `python3 deploy/afterwards.py --project NAME --failed --grafana-port 3000`.
"""

import argparse
import base64
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LINES = 6
"""So many of the last lines of a container are shown."""
ANSWER_S = 5.0
UNAUTHORIZED = 401
RESET = "docker compose exec grafana grafana cli admin reset-admin-password NEW"


class Container(NamedTuple):
    """A container as `docker ps` shows it; `status` is its text for people, health included."""

    name: str
    state: str
    status: str

    @property
    def is_well(self) -> bool:
        """It is healthy, has no health check, or is a job that has ended well."""
        if self.state == "running":
            return "unhealthy" not in self.status and "health: starting" not in self.status
        return self.state == "exited" and self.status.startswith("Exited (0)")


def containers(project: str) -> list[Container]:
    """Return the project's containers, those that ended included; none if no engine answers."""
    label = f"label=com.docker.compose.project={project}"
    form = "{{.Names}}\t{{.State}}\t{{.Status}}"
    done = subprocess.run(
        ("docker", "ps", "--all", "--filter", label, "--format", form),
        capture_output=True,
        text=True,
        check=False,
    )
    return [Container(*line.split("\t")) for line in done.stdout.splitlines()]


def last_words(container: str) -> str:
    """Return the last lines that a container wrote, to either of its outputs."""
    done = subprocess.run(
        ("docker", "logs", "--tail", str(LINES), container),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout.rstrip() or "(nothing)"


def complaint(found: Sequence[Container]) -> str:
    """Return which containers are not well and what each said last."""
    ill = [each for each in found if not each.is_well and each.state != "created"]
    waiting = [each.name for each in found if each.state == "created"]
    told = [f"{each.name} is {each.status}; it said:\n{last_words(each.name)}\n" for each in ill]
    if waiting:
        told.append(f"not begun, since they wait for others: {', '.join(waiting)}\n")
    return "\n".join(told)


def password_is_refused(port: int, password: str) -> bool:
    """Return whether a Grafana at a port of this machine answers and refuses the password of `admin`.

    It keeps the one with which its volume was made, whatever its environment says later.
    """
    given = base64.b64encode(f"admin:{password}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/org", headers={"Authorization": f"Basic {given}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S):  # noqa: S310 - http, by the line above
            return False
    except urllib.error.HTTPError as exc:
        return exc.code == UNAUTHORIZED
    except OSError:  # no Grafana, or not yet: what keeps it away is told by `up`
        return False


def main(arguments: Sequence[str]) -> None:
    """Tell what is wrong, on standard error; the exit code is that of `docker compose up`, not of this."""
    parser = argparse.ArgumentParser(description="Look at what `make up` has started.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--secrets", type=Path, default=Path(".secrets"))
    parser.add_argument("--failed", action="store_true", help="say why it is not ready")
    parser.add_argument("--grafana-port", type=int)
    wanted = parser.parse_args(arguments)
    if wanted.failed and (said := complaint(containers(wanted.project))):
        sys.stderr.write(f"\n{said}")
    if wanted.grafana_port is None:
        return
    file = wanted.secrets / "grafana_password"
    if password_is_refused(wanted.grafana_port, file.read_text(encoding="utf-8").strip()):
        sys.stderr.write(
            f"warning: Grafana refuses the password in {file}: its volume was made with another. Put that "
            f"back into the file, or set the one of the file: `{RESET}`\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
