"""Rules, their tests, runbooks and dashboard fit each other and the metrics that there are."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.observability import (
    DASHBOARD,
    KNOWN,
    OF_PROMETHEUS,
    OF_THE_PROCESS,
    RULE_TESTS,
    RULES,
    RUNBOOKS,
    alerts,
    expressions,
    labels_in,
    maker,
    names_in,
    recorded,
)

EXPRESSIONS = expressions()


@pytest.mark.parametrize("what", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(what: str) -> None:
    names = list(names_in(EXPRESSIONS[what]))
    assert names
    assert set(names) <= KNOWN.keys() | OF_THE_PROCESS | recorded()
    labels = {label for name in names if name in KNOWN for label in KNOWN[name].labels}
    assert labels_in(EXPRESSIONS[what]) <= labels | OF_PROMETHEUS


@pytest.mark.parametrize("what", EXPRESSIONS)
def test_a_counter_is_asked_for_its_rate_or_shown_as_a_sum(what: str) -> None:
    for name in set(names_in(EXPRESSIONS[what])):
        if name not in KNOWN or KNOWN[name].kind != "counter":
            continue
        for found in re.finditer(re.escape(name), EXPRESSIONS[what]):
            before = EXPRESSIONS[what][: found.start()]
            asked = re.search(r"(\w+)(?: by \([^)]*\) )?\($", before)
            assert asked, name
            assert asked[1] in ("rate", "increase", "sum"), name


def test_every_alert_has_a_section_in_the_runbooks_and_every_section_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.M)
    assert sorted(sections) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_section_says_sign_check_act_and_verify() -> None:
    for section in RUNBOOKS.read_text().split("\n## ")[1:]:
        assert re.findall(r"^- \*\*(\w+)\*\*:", section, re.M) == ["Sign", "Check", "Act", "Verify"]


def test_every_alert_is_tested_once_firing_and_once_not() -> None:
    cases = [
        (case["alertname"], bool(case["exp_alerts"]))
        for group in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for case in group["alert_rule_test"]
    ]
    assert {(name, fires) for name in alerts() for fires in (True, False)} == set(cases)


@pytest.mark.parametrize("arguments", [("check", "rules", RULES), ("test", "rules", RULE_TESTS)])
def test_promtool_finds_the_rules_to_be_as_their_tests_say(arguments: tuple[object, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there: install Prometheus to have the rules tested")
    command = [promtool, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_what_its_script_makes() -> None:
    assert json.loads(DASHBOARD.read_text()) == maker().dashboard(), (
        "run .venv/bin/python deploy/grafana/make_dashboard.py"
    )


def test_panels_of_a_dashboard_do_not_lie_upon_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
