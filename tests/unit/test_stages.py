"""The histograms of stages count what stands in the scores, each in its bucket."""

from fraudstream.core.scores import Score, Stages
from scorer.stages import EDGES_MS, NAME, StageTimes


def lines(times: StageTimes) -> dict[str, float]:
    return {text.rpartition(" ")[0]: float(text.rpartition(" ")[2]) for text in times.lines()}


def scored(waiting: float) -> Score:
    return Score(
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
        feature_set="",
        features=[],
        apply_seq=1,
        age_ms=1,
        stale=False,
        stages=Stages(waiting, 3.0, 0.5, 12.0),
    )


def test_each_score_is_counted_in_the_bucket_of_its_own_waiting() -> None:
    times = StageTimes()
    times.add([scored(ms) for ms in (0.0, 1.0, 1.5, 30.0, 99_999.0)])
    found = lines(times)
    for edge, n in (("0.001", 2), ("0.0025", 3), ("0.025", 3), ("0.05", 4), ("10", 4), ("+Inf", 5)):
        assert found[f'{NAME}_bucket{{stage="waiting",le="{edge}"}}'] == n
    assert found[f'{NAME}_count{{stage="waiting"}}'] == 5
    assert found[f'{NAME}_sum{{stage="waiting"}}'] == (0.0 + 1 + 1.5 + 30 + 99_999) / 1_000


def test_hops_of_a_batch_count_once_for_each_score_of_it() -> None:
    times = StageTimes()
    times.add([scored(1.0)] * 4)
    times.add([])
    times.add([scored(1.0)])
    found = lines(times)
    assert found[f'{NAME}_bucket{{stage="features",le="0.005"}}'] == 5
    assert found[f'{NAME}_bucket{{stage="features",le="0.0025"}}'] == 0
    assert found[f'{NAME}_sum{{stage="until_produce"}}'] == 5 * 0.012
    assert len(found) == len(Stages.__struct_fields__) * (len(EDGES_MS) + 3)
