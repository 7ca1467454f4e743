"""The alert rules: what they ask for exists, each has a runbook with its bounds, each fires and does not."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.documents import anchors, commands, leaf, shell_lines
from tests.promql import faults, selectors

RULES_FILE = REPOSITORY / "deploy" / "prometheus" / "rules.yml"
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"
SERIES = sorted((REPOSITORY / "tests" / "rules").glob("*.test.yml"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED: dict[str, str] = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
OF_THE_YOUNG = " and on (job, instance) time() - process_start_time_seconds <"
"""What a process counted before it was asked first is no growth yet: all that a young one counted is."""
STEPS = ("**Sign.** ", "**Check.**", "**Act.** ", "**Verify.** ")

each_alert = pytest.mark.parametrize("name", ALERTS)


def sections() -> dict[str, str]:
    """Return the text of each section of the runbooks by its heading."""
    found = re.split(r"^## (\w+)\n", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def bounds(expr: str) -> list[str]:
    """Return the numbers that an expression compares with."""
    return re.findall(r"[<>]=? [\d.]+(?:e\d+)?", expr)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert", rule.get("record")))
def test_every_metric_label_and_word_of_a_rule_exists(rule: dict[str, Any]) -> None:
    assert selectors(rule["expr"])
    assert faults(rule["expr"], RECORDED) == []


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("sum(fraudstream_scorer_lags)", "no metric fraudstream_scorer_lags"),
        ("rate(fraudstream_scorer_score[5m])", "no metric fraudstream_scorer_score"),
        ('fraudstream_scorer_lag{slot="1"} > 0', "fraudstream_scorer_lag has no label slot"),
        (
            'fraudstream_scorer_state{state=~"ready|runs"}',
            "fraudstream_scorer_state has no state runs",
        ),
        ("sum by (slot) (fraudstream_scorer_lag)", "nothing has the label slot"),
        ("sum by (le) (fraudstream_scorer_score_count)", "nothing has the label le"),
        ("avg_over_time(fraudstream:lag:sum[1d] offset 1h)", "no metric fraudstream:lag:sum"),
    ],
)
def test_a_metric_label_or_word_that_does_not_exist_is_found(expr: str, fault: str) -> None:
    assert faults(expr, RECORDED) == [fault]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert", rule.get("record")))
def test_a_counter_is_asked_for_its_growth(rule: dict[str, Any]) -> None:
    for name in {each.name for each in selectors(rule["expr"]) if each.name.endswith("_total")}:
        for before, after in pairwise(rule["expr"].split(name)):
            assert re.search(r"\b(rate|increase)\($", before) or after.startswith(OF_THE_YOUNG), (
                name
            )


def test_names_are_unique_and_each_recorded_series_is_used() -> None:
    names = [rule.get("alert") or rule["record"] for rule in RULES]
    assert len(names) == len(set(names))
    used = {each.name for rule in ALERTS.values() for each in selectors(rule["expr"])}
    assert RECORDED.keys() <= used


@each_alert
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    told = rule["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    assert all(told.values())
    page, _, anchor = told["runbook_url"].partition("#")
    assert REPOSITORY / page == RUNBOOKS
    assert anchor == name.lower()
    assert anchor in anchors(RUNBOOKS)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert [*sections()] == [*ALERTS], "in the order of the rules"


@each_alert
def test_a_runbook_has_its_four_steps_and_the_bounds_of_its_rule(name: str) -> None:
    text, rule = sections()[name], ALERTS[name]
    places = [text.index(step) for step in STEPS]
    assert places == sorted(places)
    wanted = [rule["labels"]["severity"], rule.get("for", "0s"), *bounds(rule["expr"])]
    assert re.findall(r"`([^`]+)`", text.strip().splitlines()[0]) == wanted
    told = re.sub(r"(?<=\d),(?=\d{3})", "", text.partition("**Sign.**")[2])
    for bound in wanted[2:]:
        number = bound.split()[1]
        assert number in {"0", "1"} or number in re.findall(r"\d[\d.]*(?:e\d+)?(?<!\.)", told), (
            bound
        )


def test_the_checks_of_the_runbooks_are_commands() -> None:
    for line in shell_lines(RUNBOOKS):
        if line.startswith("curl"):
            assert re.fullmatch(
                r"curl http://127\.0\.0\.1:\d+/(livez|readyz|metrics|model)", line
            ), line
            continue
        (words,) = commands(line)
        assert not isinstance(leaf(words[1:]), click.Group), line


def test_each_alert_has_series_that_make_it_fire_and_series_that_do_not() -> None:
    fired: set[str] = set()
    quiet: set[str] = set()
    for file in SERIES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for check in test["promql_expr_test"]:
                (name,) = re.findall(r'alertname="(\w+)"', check["expr"])
                (fired if check["exp_samples"] else quiet).add(name)
    assert fired == quiet == ALERTS.keys()


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Prometheus' own tool; without it the test is skipped."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on PATH: it comes with Prometheus (Debian: package prometheus)")
    return subprocess.run(
        [program, *arguments],
        cwd=REPOSITORY / "tests" / "rules",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES_FILE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("file", SERIES, ids=lambda file: file.name)
def test_the_alerts_fire_on_recorded_series_when_they_should_and_only_then(file: Path) -> None:
    done = promtool("test", "rules", file.name)
    assert done.returncode == 0, done.stdout + done.stderr
