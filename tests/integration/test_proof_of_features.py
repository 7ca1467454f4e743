"""What the scorer serves equals the oracle fed from the file, and knows neither the future nor hidden labels.

The small version of `benchmarks/proof_of_features.py`, on generated transactions and, where the file is,
on ten days of the Handbook's.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.oracle import differences, misleading, nine_features, served_features
from benchmarks.proof_of_features import largest_skew_days
from benchmarks.whole_file import send
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Feedback
from producer.generator import generate, make_parameters
from producer.sources import Source, cut, event_times, parse_time_ms, read_source
from tests.integration.test_exactly_once import score_all

NOTHING = dict.fromkeys(NINE.features, 0)
BY_LABELS = NINE.features[5:]

pytestmark = pytest.mark.parametrize("partitions", [4])


IN_SHORT = pytest.mark.parametrize(
    "stream", ["generated", pytest.param("handbook", marks=pytest.mark.handbook)], indirect=True
)
AT_LENGTH = pytest.mark.parametrize(
    "stream",
    ["generated", pytest.param("handbook", marks=[pytest.mark.handbook, pytest.mark.proof])],
    indirect=True,
)


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> Source:
    """A stream in which labels become known."""
    if request.param == "generated":
        values = {"seed": 6, "customers": 600, "terminals": 300, "days": 28}
        table = known_after_the_delay(generate(make_parameters(values)))
    else:
        begin, end = (parse_time_ms(day, "day") for day in ("2018-07-25", "2018-08-04"))
        whole = read_source(request.getfixturevalue("handbook"), begin, end)
        table = whole.table.slice(whole.start, whole.stop - whole.start)
    return Source("proof", table, 0, table.num_rows)


def known_after_the_delay(table: pa.Table) -> pa.Table:
    """Return the table with its reports at the label delay, as the Handbook's are.

    An earlier report counts sooner than a partition that lags behind may have been applied.
    """
    index = table.column_names.index("labelled_at_ms")
    later = pc.add(table["event_time_ms"], NINE.label_delay_ms)
    known = pc.if_else(pc.is_valid(table["labelled_at_ms"]), later, pa.scalar(None, pa.int64()))
    return table.set_column(index, table.schema.field(index), known)


def three_quarters(stream: Source) -> Source:
    """Return the stream without its last quarter."""
    return cut(stream, to_ms=int(event_times(stream.table)[stream.stop * 3 // 4]))


def served(
    settings: Settings, stream: Source, log_file: Path, early: list[Feedback] | None = None
) -> np.ndarray:
    """Return what a worker serves for the stream, the labels `early` before it."""
    send(settings, stream, early or [])
    score_all(settings, log_file)
    return served_features(settings, stream.table.slice(0, stream.stop))


@IN_SHORT
def test_the_served_features_equal_those_of_the_twin_fed_from_the_file(
    topics: Settings, stream: Source, tmp_path: Path
) -> None:
    found = served(topics, stream, tmp_path / "worker.log")

    assert differences(found, nine_features(stream.table)) == NOTHING
    assert largest_skew_days(topics) < NINE.label_delay_ms / DAY_MS
    without_labels = differences(found, nine_features(stream.table, reports=False))
    assert all(without_labels[name] for name in BY_LABELS), "a twin without labels must differ"


@AT_LENGTH
def test_no_served_feature_moves_without_the_future_and_with_wrong_labels_not_in_force(
    topics: Settings, stream: Source, tmp_path: Path
) -> None:
    past = three_quarters(stream)
    wrong = misleading(past.table.slice(0, past.stop), in_force=False)

    found = served(topics, past, tmp_path / "worker.log", wrong)

    assert len(wrong) > past.stop // 100
    assert differences(found, nine_features(stream.table)[: past.stop]) == NOTHING


@AT_LENGTH
def test_served_features_move_with_the_same_wrong_labels_in_force(
    topics: Settings, stream: Source, tmp_path: Path
) -> None:
    past = three_quarters(stream)
    wrong = misleading(past.table.slice(0, past.stop), in_force=True)

    found = served(topics, past, tmp_path / "worker.log", wrong)

    moved = differences(found, nine_features(stream.table)[: past.stop])
    assert all(moved[name] for name in BY_LABELS)
    assert not any(moved[name] for name in NINE.features[:5])
