"""Which metrics and labels a PromQL expression asks for, and whether the product has them."""

import re
from collections.abc import Mapping
from typing import NamedTuple, get_args

from fraudstream.core import metrics as m
from fraudstream.core.errors import DEAD_LETTER_KINDS
from fraudstream.core.health import STATES, WAITS
from fraudstream.core.scores import Stages

OF_PROMETHEUS = {"job", "instance"}
OF_PROCESSES = {"process_start_time_seconds", "process_resident_memory_bytes", "up"}
OF_PROCESSES |= {"process_cpu_seconds_total"}
HISTOGRAM = ("_bucket", "_count", "_sum")
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}
WORDS |= {"group_left", "group_right"}
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
STRING = re.compile(r'"[^"]*"')
SELECTOR = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*\()(?![\w:{])")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
VALUES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (m.STATE.name, "state"): STATES,
    (m.REPLAY_STATE.name, "state"): STATES,
    (m.TRAINER_STATE.name, "state"): STATES,
    (m.LEDGER_STATE.name, "state"): STATES,
    (m.MONITOR_STATE.name, "state"): STATES,
    (m.STAGE_SECONDS.name, "stage"): Stages.__struct_fields__,
    (m.DEAD_LETTERS.name, "kind"): DEAD_LETTER_KINDS,
    (m.WAITING.name, "for"): tuple(WAITS),
    (m.TRAININGS.name, "outcome"): tuple(m.OUTCOMES),
}
"""The words that a label may have, where they are few."""
BY_NAME = {metric.name: metric for metrics in m.SERVICES.values() for metric in metrics}
assert get_args(m.Kind) == ("counter", "gauge", "histogram")


class Selector(NamedTuple):
    """One `name{label="value"}` of an expression."""

    name: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expr: str) -> list[Selector]:
    """Return what an expression reads, in its order."""
    plain = re.sub(r"\[[^\]]*\]", "", GROUPING.sub(" ", expr))
    plain = re.sub(r"\boffset\s+\w+", "", plain)
    return [
        Selector(name, tuple(MATCHER.findall(inside or "")))
        for name, inside in SELECTOR.findall(plain)
        if name not in WORDS
    ]


def grouping(expr: str) -> set[str]:
    """Return the labels that an expression groups or matches by."""
    inside = ",".join(GROUPING.findall(expr))
    return {label.strip() for label in inside.split(",") if label.strip()}


def metric_of(name: str) -> m.Metric | None:
    """Return the metric of the lists that a series belongs to."""
    if name in BY_NAME:
        found = BY_NAME[name]
        return None if found.kind == "histogram" else found
    for suffix in HISTOGRAM:
        found = BY_NAME.get(name.removesuffix(suffix), m.RECORDS)
        if name.endswith(suffix) and found.kind == "histogram":
            return found
    return None


def labels_of(name: str, recorded: Mapping[str, str]) -> set[str] | None:
    """Return the labels of a series' own; None if no process and no recording rule has it."""
    if name in recorded:
        return grouping(recorded[name])
    if name in OF_PROCESSES:
        return set()
    if name == "ALERTS":
        return {"alertname", "alertstate", "severity"}
    metric = metric_of(name)
    if metric is None:
        return None
    return {*metric.labels, *(["le"] if name.endswith("_bucket") else [])}


def faults(expr: str, recorded: Mapping[str, str]) -> list[str]:
    """Return what an expression asks for that is nowhere; `recorded` are expressions by recorded name."""
    found, known = [], set(OF_PROMETHEUS)
    for name, matchers in selectors(expr):
        labels = labels_of(name, recorded)
        if labels is None:
            found.append(f"no metric {name}")
            continue
        known |= labels
        for label, value in matchers:
            if label not in labels | OF_PROMETHEUS:
                found.append(f"{name} has no label {label}")
            allowed = VALUES.get((name.removesuffix("_bucket"), label))
            wrong = set(value.split("|")) - set(allowed or value.split("|"))
            found += [f"{name} has no {label} {word}" for word in sorted(wrong)]
    return found + [f"nothing has the label {label}" for label in sorted(grouping(expr) - known)]
