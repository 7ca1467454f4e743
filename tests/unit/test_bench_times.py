"""What the benchmarks of latency and of a long run make of times and of memory."""

import numpy as np
import pytest

from tests.unit.test_bench_counted import WHOLE
from verify.bench.aims import of_latency, of_pipeline
from verify.bench.footprint import Memory
from verify.bench.latency import Due, Latency, LatencyBench, Sending, latency_of, taken
from verify.bench.listen import Heard, Minute, by_minute
from verify.bench.pipeline import PipelineBench
from verify.bench.rate import Rate
from verify.bench.soak import growth, judge

START_NS = 1_700_000_000_000_000_000
RATE = 100.0


def arrays(numbers: list[int], late_ms: float) -> dict[str, np.ndarray]:
    """Return arrivals of transactions that were each sent in time and received `late_ms` later."""
    due_ms = START_NS / 1e6 + np.array(numbers) / RATE * 1e3
    return {
        "numbers": np.array(numbers) + 5_000,
        "received_ns": ((due_ms + late_ms) * 1e6).astype(np.int64),
        "sent_ms": due_ms.astype(np.int64),
        "age_ms": np.full(len(numbers), 3),
        "stages": np.tile([1.0, 2.0, 0.5, 3.0], (len(numbers), 1)),
    }


def test_latency_counts_from_the_intended_time_and_leaves_out_the_warming_up() -> None:
    warm = 150
    numbers = [*range(warm + 50), warm + 52]
    run = taken(arrays(numbers, 20.0), Due(5_000, warm + 53, warm, START_NS, RATE))
    assert len(run.whole) == 51
    assert run.whole == pytest.approx(np.full(51, 20.0), abs=0.01)
    assert run.lost == 2
    assert run.stages["sent"] == pytest.approx(np.zeros(51), abs=1.0)
    assert run.stages["waiting"].tolist() == [1.0] * 51
    assert run.stages["commit_and_read"] == pytest.approx(np.full(51, 17.0), abs=1.1)
    found = latency_of(run)
    assert (found.p50_ms, found.p99_ms, found.lost) == (20.0, 20.0, 2)


@pytest.mark.parametrize(
    ("rate", "p99_ms", "p999_ms", "reached"),
    [
        (1e3, 30.0, 60.0, [True, True]),
        (1e3, 30.1, 60.1, [False, False]),
        (1e4, 49.0, 101.0, [True, False]),
        (5e3, 900.0, 900.0, []),
    ],
)
def test_what_was_asked_of_a_rate_is_told_beside_what_was_found(
    rate: float, p99_ms: float, p999_ms: float, reached: list[bool]
) -> None:
    sending = Sending(rate=rate, seconds=7.0, partitions=2, linger_ms=1.0)
    floor = Latency(1.0, 2.0, 3.0, 4.0, 0)
    bench = LatencyBench(
        sending, 1.0, p99_ms, p999_ms, 4.0, 0, 0, {}, floor, [], 150, "x", counted=WHOLE
    )
    assert [aim.reached for aim in of_latency(bench)] == reached


@pytest.mark.parametrize(
    ("two", "busy", "which"),
    [(36_000, 0.7, "transactions"), (30_000, 0.91, "Redis"), (30_000, 0.7, "transactions")],
)
def test_two_workers_reach_their_rate_or_the_end_of_redis(
    two: int, busy: float, which: str
) -> None:
    one = Rate(100_000, 25_001, 15.01, 0.4, 0.7, 0.1)
    both = Rate(100_000, two, 15.0, 0.4, busy, 0.1)
    bench = PipelineBench(
        one,
        both,
        one,
        {},
        {"faust_agent": 18.0, "quix_streams": None},
        0.5,
        0.7,
        0,
        0,
        1,
        1,
        150,
        "x",
        1,
        counted=WHOLE,
    )
    aims = of_pipeline(bench)
    assert [aim.reached for aim in aims] == [True, False, two > 35_000 or busy > 0.9, True]
    assert which in aims[2].name
    assert (
        aims[1].sentence() == "asked: one worker, us a transaction at most 15: 15.01, not reached"
    )


def test_minutes_are_those_in_which_transactions_were_due() -> None:
    took = np.concatenate([np.full(6_000, 10.0), np.full(6_000, 30.0), np.full(10, 50.0)])
    times = np.ones(len(took), np.uint8)
    times[:5] = 0
    minutes = by_minute(took.astype(np.float32), times, RATE)
    assert [(m.transactions, m.p50_ms) for m in minutes] == [
        (5_995, 10.0),
        (6_000, 30.0),
        (10, 50.0),
    ]


def minute(p99_ms: float) -> Minute:
    return Minute(6_000, 5.0, p99_ms, p99_ms)


@pytest.mark.parametrize(
    ("last_p99", "lost", "duplicates", "worker_mb", "holds"),
    [
        (14.0, 0, 0, 104.0, True),
        (16.0, 0, 0, 104.0, False),
        (14.0, 1, 0, 104.0, False),
        (14.0, 0, 1, 104.0, False),
        (14.0, 0, 0, 106.0, False),
    ],
)
def test_a_long_run_holds_if_nothing_grew_slowed_or_was_lost(
    last_p99: float, lost: int, duplicates: int, worker_mb: float, *, holds: bool
) -> None:
    heard = Heard([minute(10.0), minute(11.0), minute(last_p99)], lost, duplicates)
    memory = [Memory(50.0, 80.0, 300.0), Memory(100.0, 80.0, 300.0), Memory(worker_mb, 81.0, 900.0)]
    report = judge(10_000, 6_000, 180.0, heard, memory)
    assert report.holds is holds
    assert report.p99_last_to_first == last_p99 / 10


def test_memory_is_compared_from_the_second_minute_on() -> None:
    found = [Memory(10.0, 10.0, 10.0), Memory(100.0, 100.0, 100.0), Memory(90.0, 105.0, 200.0)]
    assert growth(found) == {"worker": 0.0, "redis": 0.05, "kafka": 1.0}
