"""What a worker serves is what the list of metrics says, and so does its page."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fraudstream.core.metrics import BEHIND, SCORER, SECONDS, STATE, WAITING, table
from scorer.evenness import Apart
from scorer.hot_path import HotPath
from scorer.metrics import WorkerMetrics
from scorer.status import Status
from tests.conftest import REPOSITORY


def served(status: Status, apart: dict[int, Apart]) -> dict[str, Any]:
    """Return the metrics on the page of a worker with this status, by name."""
    hot_path = cast("HotPath", SimpleNamespace(status=status, apart=apart))
    text = WorkerMetrics(hot_path).text()
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture
def busy() -> Status:
    """A worker that has scored 7 records and waits for Redis."""
    status = Status(state="waiting", waiting_for="writes_refused", seconds={"poll": 1.5})
    status.count(scored=7, dead=1, alerts=2)
    return status


def test_every_metric_of_the_list_is_served_with_its_kind_meaning_and_labels(busy: Status) -> None:
    found = served(busy, {3: Apart(1_700_000_000_000, 60_000, held=True)})
    assert found.keys() == {each.name.removesuffix("_total") for each in SCORER}
    for metric in SCORER:
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        assert family.samples
        for sample in family.samples:
            assert tuple(label for label in sample.labels if label != "le") == metric.labels


def test_values_are_those_of_the_worker(busy: Status) -> None:
    found = served(busy, {3: Apart(1_700_000_000_000, 60_000, held=True)})
    (scored,) = found["fraudstream_scorer_scored"].samples
    (behind,) = found[BEHIND.name].samples
    (poll,) = found[SECONDS.name.removesuffix("_total")].samples
    assert (scored.name, scored.value) == ("fraudstream_scorer_scored_total", 7)
    assert (behind.labels, behind.value) == ({"partition": "3"}, 60_000)
    assert (poll.labels, poll.value) == ({"hop": "poll"}, 1.5)
    assert found[STATE.name].samples[0].labels == {"state": "waiting"}
    assert found[WAITING.name].samples[0].labels == {"for": "writes_refused"}


def test_a_metric_without_a_value_is_left_out() -> None:
    found = served(Status(), {})
    assert WAITING.name not in found
    assert BEHIND.name not in found


def test_the_page_has_the_list_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert table(SCORER) in page, "run .venv/bin/python docs/metrics_table.py"
