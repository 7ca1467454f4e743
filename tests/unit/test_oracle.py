"""The twin knows neither the future nor hidden labels; the protocol splits as it says."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.oracle import differences, misleading, nine_features
from benchmarks.protocol import Cards, fold
from fraudstream.core.feature_set import NINE
from producer.generator import generate, make_parameters
from producer.sources import labels

NOTHING = dict.fromkeys(NINE.features, 0)
START = 17_737  # 2018-07-25 in days since 1970


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return generate(make_parameters({"seed": 8, "customers": 200, "terminals": 60, "days": 28}))


def test_no_feature_of_the_twin_moves_without_the_future_and_with_wrong_labels_not_in_force(
    table: pa.Table,
) -> None:
    past = table.slice(0, table.num_rows * 3 // 4)
    undisturbed = nine_features(table)[: past.num_rows]

    found = nine_features(past, early=misleading(past, in_force=False))
    misled = nine_features(past, early=misleading(past, in_force=True))

    assert differences(found, undisturbed) == NOTHING
    assert all(differences(misled, undisturbed)[name] for name in NINE.features[5:])


def test_wrong_labels_contradict_every_report_and_name_some_others_a_fraud(table: pa.Table) -> None:
    wrong = misleading(table, in_force=False)
    reported = {table["transaction_id"][row].as_py() for row in labels(table).rows.tolist()}

    assert {each.transaction_id for each in wrong if each.label != "fraud"} == reported
    others = {each.transaction_id for each in wrong if each.label == "fraud"}
    assert len(others) > table.num_rows // 100
    assert not others & reported


def test_differences_see_a_missing_score_and_the_last_bit() -> None:
    one = np.full((4, 9), 0.1, np.float32)
    other = one.copy()
    other[2] = np.nan
    other[3, 8] = np.nextafter(np.float32(0.1), np.float32(1))
    assert differences(one, other) == NOTHING | dict.fromkeys(NINE.features, 1) | {
        NINE.features[8]: 2
    }


def test_a_fold_trains_for_a_week_waits_for_one_and_tests_for_one() -> None:
    days = np.arange(START - 1, START + 22)
    quiet = Cards(days, np.zeros(len(days), np.bool_), np.arange(len(days)))
    train, test = fold(quiet, "2018-07-25")
    assert days[train].tolist() == list(range(START, START + 7))
    assert days[test].tolist() == list(range(START + 14, START + 21))


@pytest.mark.parametrize(
    ("fraud_day", "left_out_from"),
    [(START - 1, None), (START, 14), (START + 6, 14), (START + 7, 15), (START + 13, None)],
)
def test_a_card_leaves_the_test_once_its_fraud_could_be_known(
    fraud_day: int, left_out_from: int | None
) -> None:
    days = np.append(np.arange(START + 14, START + 21), fraud_day)
    one_card = Cards(days, days == fraud_day, np.zeros(len(days), np.int64))
    _, test = fold(one_card, "2018-07-25")
    kept = 7 if left_out_from is None else left_out_from - 14
    assert days[test].tolist() == list(range(START + 14, START + 14 + kept))
