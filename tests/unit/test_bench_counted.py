"""A benchmark whose worker did less than it says is worth nothing: each way of it is named."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from fraudstream.core.feature_set import NINE
from verify.bench import commands
from verify.bench.commands import NotWhole, require_whole
from verify.bench.counted import Counted, ScoredLog, trees_of
from verify.bench.latency import Latency, LatencyBench, Sending
from verify.bench.model import bench_model
from verify.bench.pipeline import PipelineBench
from verify.bench.rate import Rate

WHOLE = Counted(
    scores=10_000,
    alerts=50,
    alert_records=50,
    dead_letters=0,
    without_model=0,
    unfounded=0,
    mismatched=0,
    feature_sets=["x"],
)
RATE = Rate(100_000, 25_000, 15.0, 0.4, 0.7, 0.1)
PIPELINE = PipelineBench(
    product=RATE,
    two_workers=RATE,
    floor=RATE,
    peers={},
    ratio={},
    ratio_to_floor=0.5,
    redis_core_share=0.7,
    lost=0,
    duplicates=0,
    alerts=50,
    labels=1,
    trees=150,
    feature_set="x",
    batch_max_records=1,
    counted=WHOLE,
)
SENDING = Sending(rate=1e3, seconds=7.0, partitions=2, linger_ms=1.0)
QUICK = Latency(1.0, 2.0, 3.0, 4.0, 0)
LATENCY = LatencyBench(
    SENDING, 1.0, 2.0, 3.0, 4.0, 0, 0, {}, QUICK, [QUICK], 150, "x", counted=WHOLE
)
MISSING: list[tuple[dict[str, Any], str]] = [
    ({"dead_letters": 1}, "dead letters 1"),
    ({"without_model": 10_000}, "without model 10,000"),
    ({"unfounded": 2}, "unfounded 2"),
    ({"mismatched": 3}, "mismatched 3"),
    ({"alert_records": 49}, "50 scores are alerts, and there are 49"),
    ({"feature_sets": []}, "the scores are of 0 feature sets"),
    ({"feature_sets": ["x", "y"]}, "the scores are of 2 feature sets"),
]
SHARES = [(0, "0.00%"), (24, "0.24%"), (101, "1.01%")]


@pytest.mark.parametrize("report", [PIPELINE, LATENCY])
def test_a_bench_in_which_something_is_lost_or_doubled_fails(
    report: PipelineBench | LatencyBench,
) -> None:
    require_whole(report)
    for wrong in ({"lost": 1}, {"duplicates": 2}):
        with pytest.raises(NotWhole, match="worth nothing"):
            require_whole(msgspec.structs.replace(report, **wrong))


@pytest.mark.parametrize("report", [PIPELINE, LATENCY])
@pytest.mark.parametrize(("wrong", "said"), MISSING)
def test_a_bench_whose_worker_did_not_do_all_of_its_work_fails(
    report: PipelineBench | LatencyBench, wrong: dict[str, Any], said: str
) -> None:
    counted = msgspec.structs.replace(WHOLE, **wrong)
    with pytest.raises(NotWhole, match=f"{said}.*worth nothing"):
        require_whole(msgspec.structs.replace(report, counted=counted))


@pytest.mark.parametrize(("alerts", "said"), SHARES)
def test_a_backlog_with_another_share_of_alerts_than_ordered_fails(alerts: int, said: str) -> None:
    counted = msgspec.structs.replace(WHOLE, alerts=alerts, alert_records=alerts)
    with pytest.raises(NotWhole, match=f"alerts are {said} of the scores"):
        require_whole(msgspec.structs.replace(PIPELINE, counted=counted))
    require_whole(msgspec.structs.replace(LATENCY, counted=counted))  # a short run has few


def test_the_figures_of_latency_say_on_how_many_partitions_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "measure_latency", lambda *_: LATENCY)
    done = CliRunner().invoke(commands.bench, ["latency"])
    assert done.exit_code == 0, done.output
    assert "product at 1,000 a second on 2 partitions: p50 1.0" in done.output


class Row(msgspec.Struct):
    """A record of scores as kafka-python gives it."""

    value: bytes | None
    key: bytes | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


def test_what_the_scores_say_of_themselves_is_noted_as_they_are_read() -> None:
    log = ScoredLog.__new__(ScoredLog)  # without a broker
    for said in (
        {"feature_set": "x", "model_version": "1", "decision": "alert"},
        {"feature_set": "x", "model_version": "1", "decision": "pass"},
        {"feature_set": "y", "model_version": None, "decision": "none"},
    ):
        log.note(Row(msgspec.json.encode(said)))
    log.note(Row(None))
    assert (log.scores, log.alerts, log.without_model) == (4, 1, 1)
    assert log.feature_sets == {"x", "y"}


def test_the_trees_of_a_model_are_counted_in_its_file() -> None:
    features = np.random.default_rng(1).random((2_000, len(NINE.features)), np.float32)
    assert trees_of(bench_model(features)) == 150
