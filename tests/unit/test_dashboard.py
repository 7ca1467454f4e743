"""The dashboard as Grafana imports it: made from the panels, asking for nothing that is not there."""

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.promql import faults, grouping, labels_of, selectors

GRAFANA = REPOSITORY / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "fraudstream.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "rules.yml").read_text())["groups"]
RECORDED = {
    rule["record"]: rule["expr"] for group in RULES for rule in group["rules"] if "record" in rule
}

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def queries(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what each line of a panel is called, and its query."""
    for target in panel["targets"]:
        yield target["legendFormat"], target["expr"]


def test_the_file_is_made_from_the_panels_as_they_are() -> None:
    made = runpy.run_path(str(GRAFANA / "make_dashboard.py"))["dashboard"]()
    assert made == DASHBOARD, "run .venv/bin/python deploy/grafana/make_dashboard.py"


@each_panel
def test_every_metric_label_and_word_of_a_panel_exists(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for _, expr in queries(panel):
        assert faults(expr, RECORDED) == []


@each_panel
def test_a_line_is_called_by_labels_that_its_query_leaves(panel: dict[str, Any]) -> None:
    for legend, expr in queries(panel):
        used = set(re.findall(r"\{\{(\w+)\}\}", legend))
        left = grouping(expr)
        if not re.search(r"\b(sum|max|count)\b", expr):
            left |= {"job", "instance"}
            left |= {each for s in selectors(expr) for each in labels_of(s.name, RECORDED) or ()}
        assert used <= left, expr


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    names = [legend for legend, _ in queries(panel)]
    assert len(names) == len(set(names))
    assert len({target["refId"] for target in panel["targets"]}) == len(names)


def test_panels_lie_beside_and_below_each_other_with_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_bounds_of_red_numbers_are_those_of_the_alerts() -> None:
    red = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for panel in PANELS
    }
    exprs = {r["alert"]: r["expr"] for g in RULES for r in g["rules"] if "alert" in r}
    for title, alert in (
        ("Age of the judgement", "LedgerBlind"),
        ("Oldest that waits", "TransactionsWaitLong"),
        ("Lag", "LagGrows"),
    ):
        assert f"> {red[title]}" in exprs[alert]
