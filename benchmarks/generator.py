"""How fast the generator is and how hard its fraud: `python -m benchmarks.generator [--seed N]` prints JSON.

A model is fitted on labels as known at the border, 7 days of label delay left out, and tested on the
15 days after it: on the amount alone, on the nine features, on those with attributes, place and
velocities, and against the ceiling: the odds of one who knows the simulator's hidden state.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.oracle import nine_features
from fraudstream.core.evaluation import average_precision
from fraudstream.core.feature_set import DAY_MS, NINE
from producer.generator import Parameters, make_parameters, simulate, write_table
from producer.generator.simulate import ATTRIBUTES
from producer.sources import event_times

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

WARM_UP_DAYS, TEST_DAYS = 7, 15
HOUR_MS = 3_600_000


def main() -> None:
    """Measure rate and difficulty and print them as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--days", type=int, default=60)
    arguments.add_argument("--customers", type=int, default=Parameters().customers)
    arguments.add_argument("--terminals", type=int, default=Parameters().terminals)
    arguments.add_argument("--rate-days", type=int, default=300, help="size of the rate's stream")
    values = vars(arguments.parse_args())
    rate_days = values.pop("rate_days")
    rate = _rate(make_parameters(values | {"days": rate_days}))
    print(json.dumps(rate | _difficulty(make_parameters(values)), indent=2))


def _rate(parameters: Parameters) -> dict[str, float]:
    """Return transactions per second of wall clock and of CPU, writing the parquet file included."""
    with tempfile.TemporaryDirectory() as folder:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        table = simulate(parameters).table
        write_table(table, Path(folder) / "rate.parquet")
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {
        "rate_rows": table.num_rows,
        "rate_per_s": round(table.num_rows / wall_s),
        "rate_per_cpu_s": round(table.num_rows / cpu_s),
    }


def _difficulty(parameters: Parameters) -> dict[str, object]:
    simulation = simulate(parameters)
    table = simulation.table
    days = (event_times(table) - event_times(table)[0] // DAY_MS * DAY_MS) / DAY_MS
    border = parameters.days - TEST_DAYS
    train = (days >= WARM_UP_DAYS) & (days < border - NINE.label_delay_ms / DAY_MS)
    test = days >= border
    fraud = np.asarray(table["is_fraud"])
    nine = nine_features(table).astype(np.float64)
    columns = {
        "amount_alone": nine[:, :1],
        "nine_features": nine,
        "model_all_features": np.column_stack([nine, _attributes(table), _velocities(table)]),
    }
    known = fraud & _reported_by(table, border)
    scores = {name: _scores(x[train], known[train], x[test]) for name, x in columns.items()}
    # The amount itself as a score may do better than a model of it: the harder reading counts.
    plain = average_precision(fraud[test], nine[test, 0])
    precision = {name: average_precision(fraud[test], s) for name, s in scores.items()}
    precision["amount_alone"] = max(precision["amount_alone"], plain)
    precision["ceiling"] = average_precision(fraud[test], simulation.odds[test])
    chance = float(fraud[test].mean())
    behaviours = np.array(table["behaviour"].to_pylist())[test]
    return {
        "seed": parameters.seed,
        "transactions": table.num_rows,
        "test_frauds": int(fraud[test].sum()),
        "fraud_rate": round(float(fraud.mean()), 5),
        **{f"ap_{name}": round(value, 3) for name, value in precision.items()},
        "chance": round(chance, 5),
        "lift_nine_features": round(precision["nine_features"] / chance, 1),
        "recall_by_behaviour": {
            name: _recalls(scores[name], fraud[test], behaviours)
            for name in ("nine_features", "model_all_features")
        },
    }


def _attributes(table: pa.Table) -> Floats:
    columns = [np.asarray(table[f"attr_{name}"]) for name in ATTRIBUTES]
    return np.column_stack([*columns, event_times(table) / HOUR_MS % 24])


def _velocities(table: pa.Table) -> Floats:
    """Return counts of customer and terminal in trailing windows, and what the card did just before."""
    times = event_times(table)
    customer, terminal = (_numbers(table, name) for name in ("customer", "terminal"))
    counts = [_count(customer, times, hours) for hours in (1, 6, 24, 168)]
    counts += [_count(terminal, times, hours) for hours in (24, 168)]
    order = np.lexsort((times, customer))
    same = np.append(False, customer[order][1:] == customer[order][:-1])
    before = [
        times / HOUR_MS,
        np.asarray(table["attr_distance_km"]),
        np.asarray(table["amount_minor"]),
    ]
    previous = [_previous(column.astype(np.float64), order, same) for column in before]
    previous[0] = before[0] - previous[0]
    return np.column_stack([*counts, *previous])


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    indices = table[name].combine_chunks().dictionary_encode().indices
    return np.asarray(indices).astype(np.int64)


def _count(entity: NDArray[np.int64], times: NDArray[np.int64], hours: int) -> Floats:
    keys = entity * 2**42 + times - times[0]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    counts = np.empty(len(keys))
    counts[order] = np.arange(len(keys)) - np.searchsorted(ordered, ordered - hours * HOUR_MS)
    return counts


def _previous(column: Floats, order: NDArray[np.int64], same: Bools) -> Floats:
    shifted = np.empty(len(column))
    shifted[order] = np.where(same, np.roll(column[order], 1), -1.0)
    return shifted


def _reported_by(table: pa.Table, border: int) -> Bools:
    reported = np.asarray(table["labelled_at_ms"].cast(pa.float64()))  # NaN: never
    first_ms = event_times(table)[0] // DAY_MS * DAY_MS
    within: Bools = reported <= first_ms + border * DAY_MS
    return within


def _scores(train: Floats, known: Bools, test: Floats) -> Floats:
    model = HistGradientBoostingClassifier(
        max_iter=150,
        max_leaf_nodes=8,
        learning_rate=0.05,
        l2_regularization=10.0,
        early_stopping=False,
        random_state=0,
    )
    probabilities: Floats = model.fit(train, known).predict_proba(test)
    return probabilities[:, 1]


def _recalls(scores: Floats, fraud: Bools, behaviours: NDArray[np.str_]) -> dict[str, float]:
    """Return the share of each behaviour found when as many alerts are given as there are frauds."""
    threshold = np.sort(scores)[-int(fraud.sum())]
    names = np.unique(behaviours[fraud]).tolist()
    return {n: round(float((scores[behaviours == n] >= threshold).mean()), 3) for n in names}


if __name__ == "__main__":
    main()
