"""A chaos run's parts: the schedule follows from its seed, and the report says what is wrong."""

import inspect
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import cast

import msgspec
import pytest
from confluent_kafka import Message

from fraudstream.clients.feature_library import library_source
from fraudstream.core.feature_set import NINE
from fraudstream.core.scores import Stages
from scorer import contact, watchdog
from verify.chaos.fleet import SAYS_WHY, End
from verify.chaos.points import POINTS, STEPS, TELLING, Faults
from verify.chaos.report import WHOLE, Rebuilt, Report
from verify.chaos.sabotage import NO_MARK, NO_REPLY, SABOTAGES, TIE_BY_ARRIVAL
from verify.chaos.schedule import RANDOM, SERVER_FAULTS, make_schedule, planned_points
from verify.chaos.watch import Pending, Recovery

SOUND = Report(
    seed=1,
    sabotage=None,
    transactions=10,
    rate_ordered=100,
    sent_per_s=100.0,
    seconds=1.0,
    two_or_more_workers_run_share=1.0,
    two_or_more_workers_own_share=1.0,
    kills_ordered=1,
    kills=1,
    kills_by_point={},
    never_hit=[],
    not_passed_in_time={},
    others={},
    redelivered_records=3,
    scores_compared=10,
    versions_promoted=["1", "2"],
    scores_by_version={"": 0, "1": 7, "2": 3},
    entities_compared=1,
    alerts_compared=1,
    lost=0,
    duplicates=0,
    unfounded=0,
    mismatched=0,
    state_differences=0,
    score_differences=0,
    alert_differences=0,
    differences=[],
    recovery_ms={},
    rebuilds=[],
    unplanned_ends=[],
)
WHOLE_RUN = msgspec.structs.replace(SOUND, kills_ordered=WHOLE, kills=WHOLE)

AWAY = End(
    "worker-3.log", 1, "error: Kafka at 127.0.0.1:9 does not answer: start it", "KafkaUnreachable"
)
SEGFAULT = End("worker-1.log", -signal.SIGSEGV, "owns them")


def test_a_schedule_follows_from_its_seed() -> None:
    assert make_schedule(60, 5) == make_schedule(60, 5)
    assert make_schedule(60, 5) != make_schedule(60, 6)


@pytest.mark.parametrize("kills", [len(POINTS) + 1, 40, 200])
def test_every_point_is_planned_as_soon_as_there_are_as_many_kills(kills: int) -> None:
    events = make_schedule(kills, 3)
    assert planned_points(events) == list(POINTS)
    assert sum(event.what == "kill" for event in events) == kills


def test_fewer_kills_than_points_plan_a_point_each() -> None:
    events = make_schedule(6, 3)
    assert len(planned_points(events)) == 6
    assert Counter(event.what for event in events)["swap"] == 2


def test_a_long_schedule_breaks_every_server_in_every_way_and_kills_at_random_times() -> None:
    events = make_schedule(200, 1)
    what = Counter(event.what for event in events)
    assert all(what[fault] >= 3 for fault in SERVER_FAULTS)
    assert what["redis emptied"] >= 2
    assert what["freeze"] >= 5
    assert sum(event.point == RANDOM for event in events) >= 40
    # The supervisor of the stack starts a server anew five times, no more.
    assert what["kafka killed"] <= 5
    assert what["redis killed"] <= 5


def test_each_step_of_the_hot_path_has_a_point_before_and_after() -> None:
    for step in STEPS:
        assert {f"{step}.before", f"{step}.after"} <= set(POINTS)
    assert TELLING.keys() == SABOTAGES.keys()
    assert {point for points in TELLING.values() for point in points} <= set(POINTS)


@pytest.mark.parametrize("changes", [NO_MARK, NO_REPLY, TIE_BY_ARRIVAL])
def test_what_a_sabotage_replaces_stands_in_the_library_once(
    changes: tuple[tuple[str, str], ...],
) -> None:
    source = library_source(NINE)
    assert [source.count(old) for old, _ in changes] == [1] * len(changes)


def test_a_process_dies_at_the_third_passing_of_an_armed_point_and_at_no_other() -> None:
    script = (
        "from verify.chaos.points import Faults\n"
        "faults = Faults(); faults.arm('emit.after', 3)\n"
        "for n in range(9):\n"
        "    faults.passed('emit.before'); print(n, flush=True); faults.passed('emit.after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]


def test_what_is_disarmed_lets_everything_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("killed"))
    faults = Faults()
    faults.arm("emit.after", 1)
    faults.disarm()
    faults.passed("emit.after")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lost", 1, "lost 1"),
        ("duplicates", 2, "duplicates 2"),
        ("unfounded", 1, "unfounded results 1"),
        ("mismatched", 1, "mismatched results 1"),
        ("state_differences", 1, "state differences 1"),
        ("score_differences", 3, "score differences 3"),
        ("alert_differences", 2, "alert differences 2"),
        ("alerts_compared", 0, "there was no alert: nothing is proven of them"),
        ("scores_compared", 0, "scores compared 0, transactions 10"),
        ("kills_ordered", 4, "only 1 of 4 kills came about"),
        ("sent_per_s", 89.9, "sent 89.9 tx/s of 100 ordered"),
        (
            "unplanned_ends",
            [AWAY, *[SEGFAULT] * 3],
            "3 workers ended unasked without a reason (worker-1.log, status -11: owns them)",
        ),
        (
            "versions_promoted",
            ["1", "2", "3"],
            "version 3 was promoted and has scored nothing: nothing is proven of that swap",
        ),
        (
            "scores_by_version",
            {"": 4, "1": 3, "2": 3},
            "4 scores without a model, which was there before the workers",
        ),
        ("never_hit", ["emit.after"], "point emit.after was never hit"),
        ("redelivered_records", 0, "nothing was redelivered: the run proves nothing"),
        (
            "recovery_ms",
            {"takeover": Recovery(5, 10_100.0, 11_000.0)},
            "recovery of takeover took 10.1 s, asked are 10",
        ),
        (
            "rebuilds",
            [Rebuilt(30_000, 5_900.0)] * 2 + [Rebuilt(30_000, 6_100.0)] * 3,
            "3 of 5 rebuilds were slower than is asked",
        ),
        ("rebuilds", [Rebuilt(30_000, 900_000.0)], "1 of 1 rebuilds were slower than is asked"),
        (
            "recovery_ms",
            {"restarted_worker": Recovery(76, 2_000.0, 8_000.0, ["8000 ms"] * 20)},
            "20 of 76 recoveries of restarted_worker were late, asked are 3 s",
        ),
        (
            "recovery_ms",
            {"redis_back": Recovery(2, 3_000.0, 60_100.0, ["60100 ms"])},
            "a recovery of redis_back took 60.1 s, asked are 5",
        ),
    ],
)
def test_a_report_names_each_shortcoming(field: str, value: object, said: str) -> None:
    assert SOUND.shortcomings == []
    assert msgspec.structs.replace(SOUND, **{field: value}).shortcomings == [said]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("two_or_more_workers_run_share", 0.49, "two or more workers ran only 49% of the time"),
        (
            "two_or_more_workers_own_share",
            0.04,
            "two or more workers had partitions only 4% of the time",
        ),
        ("sent_per_s", 99.9, "sent 99.9 tx/s of 100 ordered"),
    ],
)
def test_shares_of_the_time_are_judged_as_asked_where_the_run_is_a_whole_one(
    field: str, value: float, said: str
) -> None:
    assert WHOLE_RUN.shortcomings == []
    assert msgspec.structs.replace(WHOLE_RUN, **{field: value}).wrong == [said]
    assert msgspec.structs.replace(SOUND, **{field: value}).wrong == []


def test_a_run_that_proves_nothing_says_so_in_every_way() -> None:
    nothing = msgspec.structs.replace(
        WHOLE_RUN,
        kills_ordered=200,
        kills=3,
        two_or_more_workers_run_share=0.0,
        sent_per_s=5.0,
        scores_compared=0,
        unplanned_ends=[SEGFAULT] * 40,
        rebuilds=[Rebuilt(1_000, 900_000.0)] * 2,
        recovery_ms={"restarted_worker": Recovery(76, 2_900.0, 119_000.0, ["late"] * 38)},
    )
    assert len(nothing.wrong) == 5
    assert len(nothing.shortcomings) == 8


@pytest.mark.parametrize(
    ("end", "explained"),
    [
        (AWAY, True),
        (msgspec.structs.replace(AWAY, status=4, by="Fenced"), True),
        *[
            (msgspec.structs.replace(AWAY, by=name), True)
            for name in ("DependencyUnreachable", "RedisUnreachable", "WritesRefused")
        ],
        *[
            (msgspec.structs.replace(AWAY, by=name), False)
            for name in ("", "FraudstreamError", "TooLittle", "NotInstalled", "ReplyGone")
        ],
        (msgspec.structs.replace(AWAY, status=3), False),
        (msgspec.structs.replace(AWAY, status=-signal.SIGSEGV), False),
        (End("w", 1, '{"message":"a step has not come back: this worker ends at once"}'), True),
        (End("w", 1, "[^HotPathService]: Crashed reason=RedisUnreachable('Redis')"), True),
        (End("w", 1, "[^HotPathService]: Crashed reason=KeyError('x')"), False),
        (End("w", 1, "KeyError: 'x'"), False),
        (End("w", 0, "gave up partitions [0]"), False),
        (SEGFAULT, False),
    ],
)
def test_an_end_is_explained_by_the_worker_that_says_which_server_was_away(
    end: End, *, explained: bool
) -> None:
    assert end.explained is explained
    found = msgspec.structs.replace(SOUND, unplanned_ends=[end]).shortcomings
    assert bool(found) is not explained


@pytest.mark.parametrize("guard", [contact, watchdog])
def test_what_the_guards_of_a_worker_say_is_known(guard: object) -> None:
    text = inspect.getsource(guard)  # type: ignore[arg-type]
    assert SAYS_WHY.search(text.replace('"\n        "', ""))


def test_recoveries_in_time_or_too_few_to_judge_are_no_shortcoming() -> None:
    found = {
        "takeover": Recovery(5, 9_900.0, 60_000.0, ["60000 ms: kill 3"]),
        "kafka_back": Recovery(4, 9_000.0, 9_000.0, ["9000 ms: kafka killed"] * 4),
        "restarted_worker": Recovery(76, 2_000.0, 9_000.0, ["9000 ms: kill 7"] * 19),
        "redis_back": Recovery(19, 4_000.0, 9_000.0, ["9000 ms: redis killed"] * 9),
        "rebuild_of_a_killed_rebuilder": Recovery(2, 70_000.0, 70_000.0),
    }
    assert msgspec.structs.replace(SOUND, recovery_ms=found).shortcomings == []


class Result:
    """A score as a reader has it: of a record sent at one moment, polled and handed over at others."""

    def __init__(self, *, sent_ms: int, waiting_ms: float, produced_ms: int) -> None:
        self._produced_ms = produced_ms
        self._value = msgspec.json.encode(
            {"source_timestamp_ms": sent_ms, "stages": Stages(waiting_ms, 0.0, 0.0, 0.0)}
        )

    def timestamp(self) -> tuple[int, int]:
        return 1, self._produced_ms

    def value(self) -> bytes:
        return self._value


@pytest.mark.parametrize("partitions", [None, {3}])
def test_a_batch_that_was_past_its_features_does_not_end_a_rebuild(
    partitions: set[int] | None,
) -> None:
    rebuilt = Pending(str, partitions, "", polled=True)
    back = Pending(str, partitions, "", polled=False)
    since = rebuilt.since_ms
    past = {
        3: cast("Message", Result(sent_ms=since - 900, waiting_ms=400, produced_ms=since + 900))
    }
    assert back.ended_by(past)
    assert not rebuilt.ended_by(past)
    first = {
        3: cast("Message", Result(sent_ms=since - 900, waiting_ms=1_400, produced_ms=since + 900))
    }
    assert rebuilt.ended_by(first)
    assert rebuilt.ended_by({4: first[3]}) == (partitions is None)
