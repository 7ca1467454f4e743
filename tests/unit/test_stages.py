"""The histograms of stages count what stands in the scores, each in its bucket."""

from fraudstream.core.scores import Score, Stages
from scorer.stages import EDGES_MS, StageTimes


def buckets(times: StageTimes, stage: str) -> tuple[dict[str, float], float]:
    """Return cumulative counts by upper edge in seconds, and the sum in seconds."""
    found = {name: (dict(counts), total_s) for name, counts, total_s in times.histograms()}
    return found[stage]


def scored(waiting: float) -> Score:
    return Score(
        v=1,
        transaction_id="tx",
        event_time_ms=1,
        customer="c",
        terminal="t",
        amount_minor=1,
        currency="EUR",
        source_partition=0,
        source_offset=0,
        source_timestamp_ms=1,
        score=None,
        decision="none",
        threshold=None,
        model_version=None,
        challenger_score=None,
        feature_set="",
        features=[],
        apply_seq=1,
        duplicate_of=None,
        age_ms=1,
        stale=False,
        stages=Stages(waiting, 3.0, 0.5, 12.0),
    )


def test_each_score_is_counted_in_the_bucket_of_its_own_waiting() -> None:
    times = StageTimes()
    times.add([scored(ms) for ms in (0.0, 1.0, 1.5, 30.0, 99_999.0)])
    found, total_s = buckets(times, "waiting")
    for edge, n in (("0.001", 2), ("0.0025", 3), ("0.025", 3), ("0.05", 4), ("10", 4), ("+Inf", 5)):
        assert found[edge] == n
    assert total_s == (0.0 + 1 + 1.5 + 30 + 99_999) / 1_000


def test_hops_of_a_batch_count_once_for_each_score_of_it() -> None:
    times = StageTimes()
    times.add([scored(1.0)] * 4)
    times.add([])
    times.add([scored(1.0)])
    found, _ = buckets(times, "features")
    assert (found["0.005"], found["0.0025"]) == (5, 0)
    assert buckets(times, "until_produce")[1] == 5 * 0.012
    assert len(found) == len(EDGES_MS) + 1
    assert [name for name, _, _ in times.histograms()] == list(Stages.__struct_fields__)
