"""A Prometheus of the test's own, which scrapes services with the product's rules."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.processes import wait_until

Json = dict[str, Any]


class Prometheus:
    """Asks one Prometheus over its HTTP API."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}/-/ready", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Json:
        """Return the data of an answer; what it has against the question is an assertion's message."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}", timeout=5
            ) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                raise AssertionError(f"{parameters}: {exc.read().decode()}") from exc
        data: Json = found["data"]
        return data

    def values(self, expr: str) -> list[Json]:
        """Return the samples of an expression now."""
        found: list[Json] = self.ask("query", query=expr)["result"]
        return found

    def rules(self) -> list[Json]:
        """Return every rule as it stands."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(
    program: str, folder: Path, *, port: int, rules: Path, ports: Mapping[str, int]
) -> Iterator[Prometheus]:
    """Run Prometheus at a port for the length of the block; `ports` are of the services, by job."""
    folder.mkdir()
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]}
        for job, at in ports.items()
    ]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": [str(rules)], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    line = [program, "--config.file", "prometheus.yml", "--storage.tsdb.path", "data"]
    line += ["--web.listen-address", f"127.0.0.1:{port}", "--log.level", "warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)
    made = Prometheus(port)
    try:
        wait_until(made.ready, timeout_s=30, what="Prometheus is ready")
        yield made
    finally:
        process.terminate()
        process.wait(30)
