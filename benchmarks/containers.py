"""What docs/containers.md says of the compose file, measured anew by `python -m benchmarks.containers`.

A cold start up to the first score, sizes of the images, CPU of the idle system, `docker kill` of each
container in turn under load; then the ledger. On the stand-in images; `--images default` takes the others.
"""

import argparse
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path

import msgspec

from benchmarks.container_system import Balance, System, said, until

IDLE_S = 60.0
RATE = 1_000
OWN_SERVICES = ("scorer", "trainer", "ledger", "monitor")


class Kill(msgspec.Struct, frozen=True):
    """One `docker kill`: healthy again after so many seconds; records sent meanwhile."""

    service: str
    back_s: float
    sent_meanwhile: int


class Report(msgspec.Struct, frozen=True):
    """What was measured."""

    engine: str
    cores: int
    images: str
    first_score_s: float
    all_healthy_s: float
    image_mb: dict[str, int]
    idle_cpu_percent: dict[str, float]
    rate: int
    sent_per_s: int
    kills: list[Kill]
    balance: Balance


def cold_start(system: System) -> tuple[float, float]:
    """Start everything with traffic; return the seconds to the first score and until all is healthy.

    The first score is seen by the ledger service, which counts what is committed once a second.
    """
    began = time.monotonic()
    system.make("up-demo")
    healthy_s = time.monotonic() - began
    until(lambda: _scored(system) > 0, timeout_s=120, what="the first score")
    return time.monotonic() - began, healthy_s


def idle(system: System) -> dict[str, float]:
    """Return the CPU of each service without traffic, in percent of a core, health checks included."""
    services = system.services()
    before = {name: system.cpu_s(name) for name in services}
    began = time.monotonic()
    time.sleep(IDLE_S)
    took_s = time.monotonic() - began
    used = {name: system.cpu_s(name) - before[name] for name in services}
    return {name: round(100 * cpu_s / took_s, 1) for name, cpu_s in used.items()}


def broken(system: System, calm_s: float) -> list[Kill]:
    """Kill each container in turn, with `calm_s` of traffic in between."""
    kills = []
    for service in system.services():
        before = _sent(system)
        back_s = system.kill(system.containers(service)[0])
        until(lambda before=before: _sent(system) > before, timeout_s=60, what="traffic")  # type: ignore[misc]
        kills.append(Kill(service, round(back_s, 1), _sent(system) - before))
        sys.stderr.write(f"{service}: healthy again after {back_s:.1f} s\n")
        time.sleep(calm_s)
    return kills


def _scored(system: System) -> int:
    found = system.watched()
    return found.scored if found else 0


def _sent(system: System) -> int:
    found = system.watched()
    return found.transactions if found else 0


def sizes(system: System) -> dict[str, int]:
    """Return the size of each running service's image in MB."""
    found = {}
    for service in system.services():
        image = said("docker", "inspect", "--format", "{{.Image}}", system.containers(service)[0])
        text = said("docker", "image", "inspect", "--format", "{{.Size}}", image.strip())
        found[service] = round(int(text) / 1e6)
    return found


def measured(system: System, images: str, calm_s: float) -> Report:
    """Do all of it."""
    first_s, healthy_s = cold_start(system)
    sys.stderr.write(f"first score after {first_s:.1f} s\n")
    begun_s, before = time.monotonic(), _sent(system)
    kills = broken(system, calm_s)
    sent_per_s = (_sent(system) - before) / (time.monotonic() - begun_s)
    image_mb = sizes(system)
    system.compose("stop", "producer")
    balance = system.settled()
    return Report(
        engine=said("docker", "version", "--format", "{{.Server.Version}}").strip(),
        cores=os.cpu_count() or 0,
        images=images,
        first_score_s=round(first_s, 1),
        all_healthy_s=round(healthy_s, 1),
        image_mb=image_mb,
        idle_cpu_percent=idle(system),
        rate=RATE,
        sent_per_s=round(sent_per_s),
        kills=kills,
        balance=balance,
    )


def main() -> None:
    """Measure, print, and write the report; exit code 1 if something was lost, doubled or too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="standin", choices=["standin", "default"])
    parser.add_argument(
        "--calm", type=float, default=5.0, help="Seconds of traffic between two kills."
    )
    parser.add_argument("--json", type=Path, help="Write the report there too.")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fraudstream-containers-") as made:
        system = System(
            f"fraudstream-bench-{uuid.uuid4().hex[:8]}",
            IMAGES=wanted.images,
            SECRETS_DIR=made,
            DEMO_RATE=RATE,
        )
        try:
            report = measured(system, wanted.images, wanted.calm)
        finally:
            system.make("down", "ARGS=--volumes")
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    sys.stdout.buffer.write(text + b"\n")
    if wanted.json:
        wanted.json.write_bytes(text + b"\n")
    sys.exit(1 if faults(report) else 0)


def _is_off(balance: Balance) -> bool:
    return balance.scored != balance.transactions or bool(balance.lost or balance.duplicates)


def faults(report: Report) -> list[str]:
    """Return what misses its aim, and say it."""
    idle_own = {name: report.idle_cpu_percent.get(name, 0.0) for name in OWN_SERVICES}
    found = [
        text
        for text, missed in (
            (f"first score after {report.first_score_s} s, aim 90", report.first_score_s > 90),
            (
                f"scorer image of {report.image_mb['scorer']} MB, aim 700",
                report.image_mb["scorer"] > 700,
            ),
            (f"idle {idle_own}, aim 5 %", max(idle_own.values()) > 5),
            (f"sent {report.sent_per_s} a second of {RATE}", report.sent_per_s < 0.8 * RATE),
            (f"{report.balance}", _is_off(report.balance)),
        )
        if missed
    ]
    for text in found:
        sys.stderr.write(f"missed: {text}\n")
    return found


if __name__ == "__main__":
    main()
