"""Drift and quality: the distances, when drift begins and ends, what days and labels come to."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import msgspec
import numpy as np
import pytest

from benchmarks import drift_detection
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.reference import Bins, Reference, bins_of, counted, ks, psi
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Entities, Feedback
from monitoring import intake
from monitoring.drift import Alarm, Levels
from monitoring.registry_watch import RegistryWatch
from monitoring.reports import DayReport, DriftReport, QualityReport, Report, key_of
from monitoring.watching import Scored, State, Watching

T = TypeVar("T")
FIRST = 19_000
DELAY_MS = 7 * DAY_MS


def test_psi_is_that_of_its_definition() -> None:
    before, now = [499.5, 499.5], [99.5, 899.5]
    by_hand = (0.1 - 0.5) * math.log(0.1 / 0.5) + (0.9 - 0.5) * math.log(0.9 / 0.5)
    assert psi([int(n) for n in before], [int(n) for n in now]) == pytest.approx(by_hand, abs=0.01)
    assert psi([10, 20], [10, 20]) == 0
    assert 0 < psi([100, 0], [0, 100]) < math.inf, "an empty bin makes it large, not infinite"


def test_ks_is_the_largest_difference_of_the_cumulated_shares() -> None:
    assert ks([10, 10, 10, 10], [10, 10, 10, 10]) == 0
    assert ks([1, 1, 0, 0], [0, 0, 1, 1]) == 1
    assert ks([2, 1, 1], [1, 1, 2]) == pytest.approx(0.25)


def test_ks_at_the_edges_is_that_of_the_samples_there() -> None:
    random = np.random.default_rng(5)
    one, other = random.normal(0, 1, 5_000), random.normal(0.5, 1, 5_000)
    bins = bins_of(one)
    every = np.sort(np.concatenate([one, other]))
    exact = np.abs(
        np.searchsorted(np.sort(one), every, "right")
        - np.searchsorted(np.sort(other), every, "right")
    ).max() / len(one)
    assert exact - 0.05 < ks(bins.counts, counted(bins.edges, other)) <= exact + 1e-9


def test_bins_have_equal_shares_and_a_value_of_many_rows_has_one_of_its_own() -> None:
    bins = bins_of(np.arange(1_000, dtype=np.float32))
    assert len(bins.counts) == 10
    assert all(abs(n - 100) <= 1 for n in bins.counts)
    sentinel = bins_of(np.array([99.0] * 950 + list(range(49)) + [0.0], np.float32))
    assert sentinel.edges == pytest.approx([73.5, 99.0], rel=1e-5)
    assert sentinel.counts == [50, 950, 0]
    assert psi(sentinel.counts, [500, 500, 0]) > 0.5
    assert bins_of(np.zeros(50, np.float32)).counts == [50, 0]


def test_a_value_that_comes_out_a_float_higher_or_lower_stays_in_its_bin() -> None:
    random = np.random.default_rng(3)
    leaves = random.random(40).astype(np.float32)
    values = random.choice(np.append(leaves, [leaves.max()] * 30), 5_000)
    bins = bins_of(values)
    for towards in (np.float32(-1), np.float32(2)):
        moved = np.nextafter(values, towards)
        assert (moved != values).all()
        assert counted(bins.edges, moved).tolist() == bins.counts


def test_counting_puts_edges_into_the_bin_below() -> None:
    assert counted([1.0, 2.0], np.array([0.5, 1.0, 1.5, 2.0, 2.5])).tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("values", "drifts"),
    [
        ([0.3, 0.05, 0.3, 0.05], [False, False, False, False]),
        ([0.3, 0.3, 0.2, 0.2, 0.2], [False, True, True, True, True]),
        ([0.3, 0.3, 0.05, 0.2, 0.05, 0.05], [False, True, True, True, True, False]),
    ],
    ids=["never two days in a row", "between the levels it stays", "ends below the lower level"],
)
def test_drift_begins_and_ends_after_days_in_a_row_at_different_levels(
    values: list[float], drifts: list[bool]
) -> None:
    alarm, found = Alarm(), []
    for value in values:
        before = alarm.drifts
        assert alarm.look(value, Levels(0.25, 0.1, 2)) == (alarm.drifts != before)
        found.append(alarm.drifts)
    assert found == drifts


CALM = {"hysteresis": list[int]()}


@pytest.mark.parametrize(
    ("changed", "well"),
    [
        ({}, True),
        ({"none": [{"hysteresis": [3]}, CALM]}, True),
        ({"none": [{"hysteresis": [3, 9]}, CALM]}, False),
        ({"sudden": [CALM, {"hysteresis": [2]}]}, False),
        ({"gradual": [{"hysteresis": [16]}, {"hysteresis": [-4]}]}, False),
    ],
    ids=["well", "one false alarm", "two", "sudden drift not seen", "gradual only before it was"],
)
def test_the_benchmark_of_drift_judges_what_was_not_seen_too(
    changed: dict[str, list[dict[str, list[int]]]], well: bool
) -> None:
    seen = [{"hysteresis": [2]}, {"hysteresis": [16]}]
    assert (
        drift_detection.holds({"none": [CALM, CALM], "sudden": seen, "gradual": seen} | changed)
        == well
    )


REFERENCE = Reference(
    scores=Bins([0.1, 0.5], [900, 90, 10]), features={"amount": Bins([10.0, 50.0], [300, 400, 300])}
)


def watching(state: State | None = None) -> Watching:
    made = Watching(state or State(), label_delay_ms=DELAY_MS, levels=Levels())
    made.follow("1", REFERENCE)
    return made


def scored(day: int, n: int = 1_000, *, amount: float = 0.0, prefix: str = "t") -> list[Scored]:
    """Return a day of transactions as they were at the training; the last 10 of 1,000 alert."""
    found = []
    for i in range(n):
        score = 0.05 if i < 0.9 * n else 0.3 if i < 0.99 * n else 0.9
        value = 5.0 if i % 10 < 3 else 30.0 if i % 10 < 7 else 80.0
        found.append(
            Scored(
                f"{prefix}{day}-{i}",
                (FIRST + day) * DAY_MS + i * DAY_MS // n,
                [value + amount],
                score,
                "alert" if score > 0.5 else "pass",
                "1",
            )
        )
    return found


def label(
    day: int, i: int, what: str = "fraud", *, after_days: float = 3, off_days: int = 0
) -> Feedback:
    """Return a label; its event time is so many days off that of the transaction."""
    at = (FIRST + day + off_days) * DAY_MS
    given = at + int(after_days * DAY_MS)
    return Feedback(1, f"t{day}-{i}", at, Entities("c", "t"), what, given)  # type: ignore[arg-type]


def until(day: int) -> int:
    return (FIRST + day) * DAY_MS + DAY_MS // 2


def of(kind: type[T], reports: Sequence[object]) -> list[T]:
    return [each for each in reports if isinstance(each, kind)]


def test_a_day_is_reported_once_it_is_over_with_no_distance_from_what_is_as_before() -> None:
    made = watching()
    made.scores(scored(0))
    assert made.due((FIRST + 1) * DAY_MS) == [], "an hour may still come"
    (report,) = made.due(until(1))
    assert isinstance(report, DayReport)
    assert (report.day, report.decided, report.alerts) == ("2022-01-08", 1_000, 10)
    assert (report.model_version, report.compared) == ("1", 1_000)
    assert report.score is not None
    assert report.score.psi < 0.001
    assert report.features["amount"].psi < 0.001
    assert made.due(until(1)) == [], "once"


def test_drift_is_told_when_it_begins_and_when_it_ends() -> None:
    made, reports = watching(), []
    for day in range(9):
        made.scores(scored(day, amount=100.0 if 2 <= day < 6 else 0.0))
        reports += made.due(until(day + 1))
    changes = [(each.day[-2:], each.what, each.drifts) for each in of(DriftReport, reports)]
    assert changes == [("11", "amount", True), ("15", "amount", False)]


def test_recall_and_precision_of_a_day_are_told_once_its_labels_are_mature() -> None:
    made = watching()
    made.labels([label(0, 999)])  # before its transaction
    made.scores(scored(0))
    made.labels([label(0, 995), label(0, 3), label(0, 4, "genuine"), label(0, 990, "unsure")])
    assert of(QualityReport, made.due(until(8) - DAY_MS)) == []
    (report,) = of(QualityReport, made.due(until(8)))
    assert (report.alerts, report.frauds, report.found) == (10, 3, 2)
    assert report.recall == pytest.approx(2 / 3)
    assert report.precision == pytest.approx(0.2)
    day, decided = made.quality()
    assert (day.found, day.frauds, day.alerts, decided) == (2, 3, 10, 1_000)


def test_the_label_that_was_given_last_is_in_force() -> None:
    made = watching()
    made.scores(scored(0))
    made.labels([label(0, 995), label(0, 995, "genuine", after_days=4)])
    made.labels(
        [label(0, 995, after_days=2), label(0, 996, "genuine"), label(0, 996, after_days=5)]
    )
    assert (made.state.days[FIRST].frauds, made.state.days[FIRST].found) == (1, 1)


@pytest.mark.parametrize("labels_first", [True, False])
def test_an_alert_and_its_label_count_on_the_day_of_the_score_whatever_time_the_label_has(
    labels_first: bool,
) -> None:
    made = watching()
    off = [label(0, i, off_days=2) for i in range(990, 1_000)]
    if labels_first:
        made.labels(off)
    made.scores([*scored(0), *scored(2, prefix="u")])
    if not labels_first:
        made.labels(off)
    made.labels([label(0, 999, "genuine", after_days=9), label(0, 998, after_days=9, off_days=1)])
    days = made.state.days
    assert (days[FIRST].alerts, days[FIRST].frauds, days[FIRST].found) == (10, 9, 9)
    other = [day for number, day in days.items() if number != FIRST]
    assert [(day.frauds, day.found) for day in other] == [(0, 0)] * len(other)


def test_a_fraud_without_an_alert_counts_on_the_day_that_its_label_gives() -> None:
    made = watching()
    made.scores(scored(0))
    made.labels([label(0, 3, off_days=1), label(0, 99_999)])
    made.labels([label(0, 3, after_days=4)])
    assert {number - FIRST: day.frauds for number, day in made.state.days.items()} == {0: 2, 1: 0}


def test_delays_are_those_of_first_labels_that_were_given_after_their_transaction() -> None:
    made = watching()
    made.labels([label(0, 1), label(0, 2, after_days=-1), label(0, 3, after_days=0)])
    made.labels([label(0, 1, "genuine", after_days=9)])
    assert made.delays_days == [3, 0]


def test_history_without_a_model_and_repeated_transactions_do_not_count() -> None:
    made = watching()
    history = [msgspec.structs.replace(each, model_version=None) for each in scored(0, prefix="h")]
    repeated = [msgspec.structs.replace(each, duplicate_of=1) for each in scored(1)]
    made.scores(history)
    made.scores(repeated)
    assert made.due(until(3)) == []
    made.scores(scored(2))
    (report,) = made.due(until(3))
    assert isinstance(report, DayReport)
    assert report.decided == 1_000


def test_a_new_version_is_compared_with_its_own_training_from_its_first_score_on() -> None:
    made = watching()
    made.scores(scored(0)[:500])
    other = Reference(Bins([0.5], [990, 10]), {"amount": Bins([10.0], [300, 700])})
    made.follow("2", other)
    made.scores([msgspec.structs.replace(each, model_version="2") for each in scored(0)[500:]])
    (report,) = made.due(until(1))
    assert isinstance(report, DayReport)
    assert (report.model_version, report.compared, report.decided) == ("2", 500, 1_000)


def test_versions_that_come_in_turns_are_counted_apart_and_the_newest_is_compared() -> None:
    made = watching()
    made.follow("2", REFERENCE)
    rows = scored(0, 2_000)
    halves = (
        rows[:1_000],
        [msgspec.structs.replace(each, model_version="2") for each in rows[1_000:]],
    )
    for first in range(0, 1_000, 100):  # two partitions, of which one is further
        made.scores(halves[1][first : first + 100])
        made.scores(halves[0][first : first + 100])
    (report,) = made.due(until(1))
    assert isinstance(report, DayReport)
    assert (report.model_version, report.compared, report.decided) == ("2", 1_000, 2_000)
    assert made.state.days[FIRST].versions["1"].scores == 1_000


def test_a_new_version_each_day_of_few_scores_leaves_the_day_to_the_one_of_most() -> None:
    made, reports = watching(), []
    for day in range(6):
        rows = scored(day, 2_000, amount=100.0)
        few = rows[4::5]  # the last one among them
        del rows[4::5]
        for version, part in ((day, rows), (day + 1, few)):
            made.follow(str(version), REFERENCE)
            made.scores([msgspec.structs.replace(e, model_version=str(version)) for e in part])
        reports += made.due(until(day + 1))
    days = [(e.model_version, e.compared) for e in of(DayReport, reports)]
    assert days == [(str(day), 1_600) for day in range(6)]
    assert [(e.what, e.drifts) for e in of(DriftReport, reports)] == [("amount", True)]


def drift_then_version_2(made: Watching) -> list[object]:
    """Return what is reported of three days with drift, and three with version 2 and none."""
    reports: list[object] = []
    for day in range(6):
        version = "2" if day >= 3 else "1"
        rows = scored(day, amount=100.0 * (day < 3))
        made.scores([msgspec.structs.replace(each, model_version=version) for each in rows])
        reports += made.due(until(day + 1))
    return reports


def test_what_drifts_ends_by_the_days_of_the_version_that_serves_then() -> None:
    made = watching()
    made.follow("2", REFERENCE)
    reports = drift_then_version_2(made)
    changes = [(e.day[-2:], e.drifts, e.model_version) for e in of(DriftReport, reports)]
    assert changes == [("09", True, "1"), ("12", False, "2")]


def test_what_a_new_version_does_not_have_drifts_no_more() -> None:
    made = watching()
    made.follow("2", Reference(REFERENCE.scores, {"other": REFERENCE.features["amount"]}))
    reports = drift_then_version_2(made)
    changes = [(e.day[-2:], e.what, e.drifts) for e in of(DriftReport, reports)]
    assert changes == [("09", "amount", True), ("11", "amount", False)]
    assert of(DriftReport, reports)[1].psi > 1, "that of the last day that had it"
    assert made.state.alarms.keys() == {"score", "other"}


def test_what_drifts_ends_with_a_version_that_says_nothing_of_its_training() -> None:
    made = watching()
    made.follow("2", None)
    reports = drift_then_version_2(made)
    changes = [(e.day[-2:], e.what, e.drifts) for e in of(DriftReport, reports)]
    assert changes == [("09", "amount", True), ("11", "amount", False)]
    assert made.state.alarms == {}


def test_a_version_without_a_training_that_comes_late_on_a_day_leaves_it_to_the_one_before() -> (
    None
):
    made = watching()
    made.follow("2", None)
    rows = scored(0, 2_000)
    made.scores(rows[:1_600])
    made.scores([msgspec.structs.replace(each, model_version="2") for each in rows[1_600:]])
    (report,) = of(DayReport, made.due(until(1)))
    assert (report.model_version, report.compared) == ("1", 1_600)


def test_only_versions_of_days_that_are_not_over_are_compared() -> None:
    made = watching()
    made.follow("2", REFERENCE)
    drift_then_version_2(made)
    made.scores([msgspec.structs.replace(each, model_version="2") for each in scored(6)])
    assert made.open_versions() == {"2"}


def test_a_new_version_each_day_does_not_hide_drift() -> None:
    made, reports = watching(), []
    for day in range(6):
        made.follow(str(day), REFERENCE)
        rows = scored(day, amount=100.0)
        made.scores([msgspec.structs.replace(each, model_version=str(day)) for each in rows])
        reports += made.due(until(day + 1))
    assert [(e.what, e.drifts) for e in of(DriftReport, reports)] == [("amount", True)]


def test_alert_records_label_delay_and_histograms_are_reported() -> None:
    made = watching()
    made.scores(scored(0))
    made.alert_records([FIRST * DAY_MS + i for i in range(12)])
    made.labels([label(0, 995, after_days=2), label(0, 996, after_days=4)])
    made.labels([label(0, 995, "genuine", after_days=6)])
    (day,) = of(DayReport, made.due(until(1)))
    assert (day.alerts, day.alert_records) == (10, 12)
    assert day.score is not None
    assert day.score.counts == [900, 90, 10]
    made.scores(scored(9))
    quality = of(QualityReport, made.due(until(9)))[0]
    assert (quality.labels, quality.label_delay_days, quality.frauds) == (2, 3.0, 1)


def test_too_few_scores_are_not_compared() -> None:
    made = watching()
    made.scores(scored(0, 499))
    made.scores(scored(1, 500))
    few, enough = made.due(until(2))
    assert isinstance(few, DayReport)
    assert isinstance(enough, DayReport)
    assert (few.compared, few.score, enough.compared) == (0, None, 500)


def test_one_transaction_with_a_wrong_clock_ends_no_day() -> None:
    made = watching()
    made.scores([*scored(0), *scored(300, 1)])
    assert made.due(min(until(400), made.begun_ms())) == []
    made.scores(scored(1))
    (report,) = made.due(min(until(400), made.begun_ms()))
    assert report.day == "2022-01-08"


def test_wrong_clocks_end_no_day_however_many_come_over_the_days() -> None:
    made, days = watching(), []
    for day in range(40):
        made.scores([*scored(day), *scored(300, 50, prefix=f"{day}-")])
        days += [each.day for each in made.due(min(until(400), made.begun_ms()))]
    assert days[:2] == ["2022-01-08", "2022-01-09"]
    assert len(set(days)) == 39


def test_days_that_were_counted_before_a_slow_partition_came_are_not_forgotten() -> None:
    made, days = watching(), []
    made.scores([each for day in range(12) for each in scored(day)])
    for slow in (until(3), until(11)):
        days += [e.day for e in of(DayReport, made.due(min(slow, made.begun_ms())))]
    assert len(days) == 11


class Heard:
    """As much of a record as the progress looks at."""

    def __init__(self, partition: int) -> None:
        self._partition = partition

    def partition(self) -> int:
        return self._partition


def test_a_partition_that_is_behind_holds_the_time_until_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(intake, "monotonic_s", lambda: now_s)
    progress = intake.Progress({1: until(2)})
    assert progress.limit(until(9)) == until(2)
    progress.heard([Heard(0)], [Scored("a", until(5), [])])  # type: ignore[list-item]
    now_s += intake.SILENT_S - 1
    assert progress.limit(until(9)) == until(2)
    progress.heard([Heard(0)], [Scored("b", until(6), [])])  # type: ignore[list-item]
    now_s += 2
    assert progress.limit(until(9)) == until(6)
    assert progress.limit(until(4)) == until(4)


def test_a_day_without_decisions_has_no_report_and_one_long_ago_brings_none_in_between() -> None:
    made = watching()
    made.scores([*scored(-8_000, 1), *scored(0), *scored(3)])
    reports = made.due(min(until(400), made.begun_ms()))
    assert [each.day for each in of(DayReport, reports)] == ["2000-02-13", "2022-01-08"]


def test_what_a_restarted_monitor_shows_is_in_its_state() -> None:
    made = watching()
    for day in range(2):
        made.scores(scored(day, amount=100.0))
        made.due(until(day + 1))
    assert made.state.distances["amount"].psi > 1


def test_versions_of_open_days_are_asked_for_after_a_restart() -> None:
    made = watching()
    made.scores(scored(0))
    again = Watching(made.state, label_delay_ms=DELAY_MS, levels=Levels())
    assert again.unknown() == {"1"}
    again.follow("1", REFERENCE)
    assert again.unknown() == set()
    (report,) = again.due(until(1))
    assert isinstance(report, DayReport)
    assert report.compared == 1_000


def test_a_version_that_says_nothing_of_its_training_is_not_compared() -> None:
    made = watching()
    made.follow("1", None)
    made.scores(scored(0))
    (report,) = made.due(until(1))
    assert isinstance(report, DayReport)
    assert (report.compared, report.score, report.features) == (0, None, {})


def test_a_state_that_is_written_and_read_goes_on_as_if_nothing_had_happened() -> None:
    days = [(scored(day, amount=100.0 * (day > 3)), [label(day, 995)]) for day in range(12)]

    def run(*, restarts: bool) -> list[Report]:
        made, reports = watching(), []
        for day, (some, answers) in enumerate(days):
            made.scores(some)
            made.labels(answers)
            reports += made.due(until(day + 1))
            if restarts:
                made = watching(
                    msgspec.msgpack.decode(msgspec.msgpack.encode(made.state), type=State)
                )
        return reports

    calm = run(restarts=False)
    assert run(restarts=True) == calm
    assert len({key_of(each) for each in calm}) == len(calm)


def test_what_is_kept_does_not_grow_with_the_stream() -> None:
    made = watching()
    for day in range(120):
        made.scores(scored(day, 200))
        made.labels([label(day, 199)])
        made.due(until(day + 1))
    state = made.state
    assert 20 < len(state.days) <= 7 + 14 + 3
    assert max(len(state.alerted), len(state.verdicts)) <= len(state.days) * 2


def test_a_registry_that_refuses_or_does_not_answer_is_away_until_it_answers_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "monitoring.registry_watch")
    with answering([403, 403, 404, 404]) as url:
        watch = RegistryWatch(Settings(mlflow_url=url))
        assert watch.why == f"MLflow at {url} has not answered yet"
        for why in (f"MLflow at {url} answered 403: no", None):
            watch.ask()
            watch.ask()
            assert watch.why == why
    watch.ask()
    assert watch.why is not None
    assert watch.why.startswith(f"MLflow at {url} does not answer")
    said = [
        each.getMessage().partition(url)[2][:12] or each.getMessage() for each in caplog.records
    ]
    assert said == [" answered 40", "MLflow answers again", " does not an"]


@contextmanager
def answering(statuses: list[int]) -> Iterator[str]:
    """Serve one of these statuses a question at the address returned; 404 as MLflow says "there is none"."""
    left = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status := next(left))
            self.end_headers()
            code = b"RESOURCE_DOES_NOT_EXIST" if status == 404 else b"PERMISSION_DENIED"
            self.wfile.write(b'{"error_code": "%s", "message": "no"}' % code)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
