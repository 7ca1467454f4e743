"""What `make up` looks at first: engine, ports, secrets, clock; each fault in one sentence.

Plain Python, nothing installed: `python3 deploy/preflight.py --project NAME --port MLFLOW_PORT=5000 ...`.
Makes the secrets that are missing where no data was made with others yet.
"""

import argparse
import json
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

ENGINE = (20, 10)
COMPOSE = (2, 24)
CPUS = 2
MEMORY_GIB = 4
SKEW_S = 5.0
HIGHEST_PORT = 65_535
SECRETS = {"postgres_password": "postgres-data", "grafana_password": "grafana-data"}
"""Each secret and the volume that is made with it."""


class Fault(Exception):
    """Something that keeps the system from starting; the text is for the user."""


def version(text: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version, `v2.40.3` and `20.10.24+dfsg1` included."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def check_versions(engine: str, compose: str) -> None:
    """Raise Fault unless engine and compose know all that docker-compose.yml uses."""
    if version(engine) < ENGINE:
        raise Fault(
            f"the Docker engine is {engine}, docker-compose.yml needs {ENGINE[0]}.{ENGINE[1]} or newer: "
            "update the engine"
        )
    if version(compose) < COMPOSE:
        raise Fault(
            f"docker compose is {compose or 'not installed'}, {COMPOSE[0]}.{COMPOSE[1]} or newer is needed "
            "(`up --wait` with a job that ends): install the compose plugin, version 2"
        )


def check_size(cpus: int, memory_bytes: int) -> None:
    """Raise Fault if the engine has less than the limits in docker-compose.yml take for granted."""
    if cpus < CPUS:
        raise Fault(
            f"the engine has {cpus} CPU, docker-compose.yml lets Kafka use {CPUS}: give it more, or lower "
            "`cpus` of kafka in docker-compose.yml"
        )
    if memory_bytes < MEMORY_GIB << 30:
        raise Fault(
            f"the engine has {memory_bytes / 2**30:.1f} GiB of memory, {MEMORY_GIB} are needed: give it more"
        )


def check_ports(ports: Mapping[str, int], ours: Sequence[int]) -> None:
    """Raise Fault if a port to be published is taken by something else than this project's containers."""
    for variable, port in ports.items():
        if port in ours:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                raise Fault(
                    f"port {port} of 127.0.0.1 cannot be published ({exc.strerror}): stop what listens "
                    f"there, or `make up {variable}=PORT`"
                ) from exc


def read_ports(texts: Sequence[str]) -> dict[str, int]:
    """Return VARIABLE=PORT texts as numbers by variable; raise Fault for what is none, or is there twice."""
    ports: dict[str, int] = {}
    for text in texts:
        variable, _, port = text.partition("=")
        if not port.isdecimal() or not 1 <= int(port) <= HIGHEST_PORT:
            raise Fault(f"{variable}={port} is no port: give a number from 1 to {HIGHEST_PORT}")
        for other, taken in ports.items():
            if taken == int(port):
                raise Fault(f"{variable} and {other} are both {port}: `make up {variable}=PORT`")
        ports[variable] = int(port)
    return ports


def check_clock(engine_s: float, before_s: float, after_s: float) -> None:
    """Raise Fault if the engine's clock is not that of this machine: ages and deadlines would be wrong.

    All containers of one engine have its clock; it drifts where the engine is in a virtual machine.
    """
    skew_s = max(before_s - engine_s, engine_s - after_s, 0.0)
    if skew_s > SKEW_S:
        raise Fault(
            f"the engine's clock and this machine's differ by {skew_s:.0f} s: set them by NTP, or restart "
            "the engine's virtual machine; event times and ages of scores would be wrong"
        )


def ready_secrets(folder: Path, volumes: Sequence[str]) -> None:
    """Make the secrets that are missing, readable by the containers' users only through the folder.

    Raises:
        Fault: data was made with a secret that is missing now, or a secret is empty or cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, volume in SECRETS.items():
            _ready_secret(folder / name, volume in volumes, volume)
    except OSError as exc:
        raise Fault(f"{folder} cannot be written ({exc.strerror}): secrets belong there") from exc


def _ready_secret(path: Path, has_data: bool, volume: str) -> None:
    if path.exists():
        if not path.read_text(encoding="utf-8").strip():
            raise Fault(f"{path} is empty: put the password there, or remove the file")
        return
    if has_data:
        raise Fault(
            f"{path} is missing, but the volume {volume} was made with that password: put the file back, or "
            f"remove the volume if its data may go (`docker volume rm`)"
        )
    path.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
    path.chmod(0o444)  # the folder keeps others out; in a container it has the reader's user


def ask(*command: str, of_what: str) -> str:
    """Return what a docker command says.

    Raises:
        Fault: there is no docker command, or no engine answers.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as exc:
        raise Fault("there is no `docker` command: install Docker, or use `make demo`") from exc
    except subprocess.TimeoutExpired as exc:
        raise Fault(f"the Docker engine gave no {of_what} within 30 s: restart it") from exc
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Fault(
            f"no Docker engine answers ({said}): start it, or use `make demo`, which needs none"
        )
    return done.stdout.strip()


def compose_version() -> str:
    """Return the version of the compose plugin, nothing if there is none."""
    command = ("docker", "compose", "version", "--short")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def published(project: str) -> list[int]:
    """Return the ports that this project's containers publish now."""
    label = f"label=com.docker.compose.project={project}"
    text = ask("docker", "ps", "--filter", label, "--format", "{{.Ports}}", of_what="ports")
    return [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)->", text)]


def volumes_of(project: str) -> list[str]:
    """Return the names, in docker-compose.yml, of the volumes that this project has."""
    label = f"label=com.docker.compose.project={project}"
    form = '{{.Label "com.docker.compose.volume"}}'
    return ask(
        "docker", "volume", "ls", "--filter", label, "--format", form, of_what="volumes"
    ).split()


def check(project: str, folder: Path, ports: Mapping[str, int]) -> None:
    """Look at everything, in the order in which a later question makes sense.

    Raises:
        Fault: the first thing that is wrong.
    """
    before_s = time.time()
    facts = json.loads(ask("docker", "info", "--format", "{{json .}}", of_what="information"))
    after_s = time.time()
    if errors := facts.get("ServerErrors"):
        raise Fault(
            f"no Docker engine answers ({errors[0]}): start it, or use `make demo`, which needs none"
        )
    check_versions(facts["ServerVersion"], compose_version())
    check_size(facts["NCPU"], facts["MemTotal"])
    # Python before 3.11 reads six digits of a second, engines write nine.
    clock = re.sub(r"(\.\d{6})\d+", r"\1", facts["SystemTime"]).replace("Z", "+00:00")
    check_clock(datetime.fromisoformat(clock).timestamp(), before_s, after_s)
    check_ports(ports, published(project))
    ready_secrets(folder, volumes_of(project))


def main(arguments: Sequence[str]) -> None:
    """Check; exit code 1 with a sentence for the first fault."""
    parser = argparse.ArgumentParser(description="Look at what `make up` needs.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--secrets", type=Path, default=Path(".secrets"))
    parser.add_argument("--port", action="append", default=[], metavar="VARIABLE=PORT")
    wanted = parser.parse_args(arguments)
    try:
        check(wanted.project, wanted.secrets, read_ports(wanted.port))
    except Fault as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main(sys.argv[1:])
