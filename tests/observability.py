"""Rules, runbooks and dashboard as data, to be held against each other and a running system."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fraudstream.core.metrics import SERVICES, Metric
from tests.conftest import REPOSITORY

RULES = REPOSITORY / "deploy" / "prometheus" / "rules.yml"
RULE_TESTS = REPOSITORY / "tests" / "rules" / "rules.test.yml"
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "dashboards" / "fraudstream.json"
KNOWN: dict[str, Metric] = {each.name: each for listed in SERVICES.values() for each in listed}
OF_THE_PROCESS = {
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}
OF_PROMETHEUS = {"le", "instance", "job"}
"""Labels that histograms have, or that Prometheus gives to what it scrapes."""


def rules() -> list[dict[str, Any]]:
    """Return all rules, recorded ones included."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> set[str]:
    """Return the names of the recorded series."""
    return {rule["record"] for rule in rules() if "record" in rule}


def maker() -> Any:  # noqa: ANN401 - a module that is no package's
    """Return the script that makes the dashboard, as a module."""
    path = REPOSITORY / "deploy" / "grafana" / "make_dashboard.py"
    spec = importlib.util.spec_from_file_location("make_dashboard", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expressions() -> dict[str, str]:
    """Return every expression of rules and dashboard by what it is for."""
    found = {f"rule {rule.get('alert') or rule['record']}": str(rule["expr"]) for rule in rules()}
    return found | {f"panel {name}": query for name, query in maker().queries().items()}


def names_in(expression: str) -> Iterator[str]:
    """Yield the metrics and recorded series of an expression; those of a histogram under its own name."""
    for name in re.findall(r"\b(?:fraudstream[_:][\w:]+|process_\w+)", expression):
        bare = name.removesuffix("_bucket")
        yield bare if bare in KNOWN else name


def labels_in(expression: str) -> set[str]:
    """Return the labels by which an expression selects and groups."""
    grouped = re.findall(r"\b(?:by|without|on) \(([^)]*)\)", expression)
    selected = re.findall(r"\{([^}]*)\}", expression)
    names = {name.strip() for group in grouped for name in group.split(",")}
    return names | {name for part in selected for name in re.findall(r"(\w+)\s*[=!]", part)}


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file."""
    return path.read_text().splitlines()
