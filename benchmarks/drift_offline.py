"""Does a model lose recall to shell merchants, and does retraining bring it back? Without any server.

    .venv/bin/python -m benchmarks.drift_offline --seeds 1-10

For each seed the generator's stream with shells from day 40, the nine features by the twin, and the
trainer's own steps: the fit on all mature rows serves, with the threshold by the newest traffic. Model 1
learns on day 35, model 2 on day 52 and serves from day 55 on. Prints JSON; 20 s a seed.
"""

import argparse
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.drift_story import numbers
from benchmarks.oracle import nine_features
from fraudstream.clients.score_log import ScoreLog
from fraudstream.core.evaluation import Share, share, threshold_for_rate
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.transaction import Feedback
from producer.generator import generate, make_parameters
from producer.sources import event_times, feedback, labels
from trainer.build import build, labels_in_force, newest
from trainer.fit import fit
from verify.demo.periods import share_of, truth_of

Bools = NDArray[np.bool_]

DAYS, FIRST_TRAINING, ONSET, SECOND_TRAINING, SWAP = 64, 35, 40, 52, 55
WINDOW_DAYS = 22
"""Newest mature days to learn from; the first days of a stream know no terminals yet."""
ALERTS_PER_1000 = 15.0
SMALL_PRICE = 20.0


@dataclass(frozen=True)
class Stream:
    """N transactions, their truth, and the labels in the order in which they become known.

    `day` float64 [N] since the stream's first; `incident` [N]: frauds of one incident share a number.
    """

    log: ScoreLog
    reports: list[Feedback]
    start_ms: int
    day: NDArray[np.float64]
    fraud: Bools
    behaviour: NDArray[np.str_]
    incident: NDArray[np.int64]


def main() -> None:
    """Print the table of all seeds and for how many of them the story holds."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--seeds", default="1-10", help="such as 1-10 or 3,7")
    arguments.add_argument("--shell-share", type=float, default=1.0)
    chosen = arguments.parse_args()
    rows = [row(seed, chosen.shell_share) for seed in numbers(chosen.seeds)]
    held = [all(each["checks"].values()) for each in rows]
    print(json.dumps({"holds": sum(held), "of": len(rows), "seeds": rows}, indent=2))


def row(seed: int, shell_share: float) -> dict[str, dict[str, object]]:
    """Return what both models were worth on the stream of `seed`."""
    values = {"seed": seed, "days": DAYS, "shells_from_day": ONSET, "shell_share": shell_share}
    stream = stream_of(generate(make_parameters(values)))
    first = alerts(stream, FIRST_TRAINING)
    second = alerts(stream, SECOND_TRAINING)
    after = stream.day >= SWAP
    periods = {
        "calm": (first, (stream.day >= FIRST_TRAINING) & (stream.day < ONSET)),
        "before": (first, (stream.day >= ONSET) & ~after),
        "after": (second, after),
        "after_without_retraining": (first, after),
    }
    found = {name: figures(stream, *each) for name, each in periods.items()}
    return {
        "stream": {"seed": seed, "shell_share": shell_share},
        "checks": checks(
            {name: share_in(a, stream.fraud & period) for name, (a, period) in periods.items()},
            {name: share_in(stream.fraud, a & period) for name, (a, period) in periods.items()},
        ),
        **found,
    }


def figures(stream: Stream, alerted: Bools, period: Bools) -> dict[str, object]:
    """Return what the alerts of a period were worth: [share, lower, upper bound, of how many]."""
    frauds, alerts_there = stream.fraud & period, alerted & period
    incidents = share_of(frauds & alerted, frauds, stream.incident)
    return {
        "recall": shown(share_in(alerted, frauds)),
        "recall_by_incidents": shown(incidents),
        "precision": shown(share_in(stream.fraud, alerts_there)),
        "precision_like_a_shell": shown(
            share_in(stream.fraud, alerts_there & like_a_shell(stream))
        ),
        "alerts_per_1000": round(1000 * float(alerted[period].mean()), 1),
        "recall_by_behaviour": by_behaviour(stream, alerted, period),
    }


def stream_of(table: pa.Table) -> Stream:
    """Return a generated table with its features as the scorer would have logged them."""
    times, truth = event_times(table), truth_of(table)
    start_ms = int(times[0]) // DAY_MS * DAY_MS
    ids, customers = (table[name].cast(pa.string()) for name in ("transaction_id", "customer"))
    return Stream(
        ScoreLog(ids, customers, times, nine_features(table), 0, 0),
        feedback(table, labels(table)),
        start_ms,
        (times - start_ms) / DAY_MS,
        truth.fraud,
        np.array(table["behaviour"].to_pylist()),
        truth.incident,
    )


def alerts(stream: Stream, day: int) -> Bools:
    """Return which transactions a model trained on `day`, as `fraudstream train` does, alerts; bool [N]."""
    as_of_ms = stream.start_ms + day * DAY_MS
    mature = build(
        stream.log,
        labels_in_force(stream.reports, as_of_ms),
        as_of_ms=as_of_ms,
        label_delay_ms=NINE.label_delay_ms,
        days=WINDOW_DAYS,
    )
    fitted = fit(mature.features, mature.labels, seed=0)
    now = newest(stream.log, as_of_ms=as_of_ms, label_delay_ms=NINE.label_delay_ms)
    scores = fitted.probabilities(now).astype(np.float32)
    threshold = threshold_for_rate(scores, alerts_per_1000=ALERTS_PER_1000)
    served = fitted.probabilities(stream.log.features)
    alerted: Bools = served.astype(np.float32) >= threshold
    return alerted


def checks(recall: dict[str, Share], precision: dict[str, Share]) -> dict[str, object]:
    """Return each claim of the story, with Wilson intervals, and whether it is so."""
    calm, before, after = (value_of(recall[name]) for name in ("calm", "before", "after"))
    return {
        "recall_fell_by_0.12": calm - before >= 0.12,
        "fall_beyond_chance": bound(recall["before"].high) < calm,
        "recall_came_back": after >= calm - 0.05,
        "recovery_beyond_chance": bound(recall["after"].low) > bound(recall["before"].high),
        "better_than_without_retraining": after > value_of(recall["after_without_retraining"]),
        "precision_kept": value_of(precision["after"]) >= value_of(precision["calm"]) - 0.1,
    }


def like_a_shell(stream: Stream) -> Bools:
    """Return which rows look like a shell's: small, no confirmed outcome at the terminal; bool [N]."""
    amount, run, genuine = (
        stream.log.features[:, NINE.features.index(name)]
        for name in ("amount", "terminal_fraud_run", "terminal_days_since_genuine")
    )
    alike: Bools = (amount < SMALL_PRICE) & (run == 0) & (genuine == NINE.none_days)
    return alike


def by_behaviour(stream: Stream, alerted: Bools, period: Bools) -> dict[str, list[float | None]]:
    """Return the recall of each fraud behaviour in the period."""
    frauds = stream.fraud & period
    return {
        str(name): shown(share_in(alerted, frauds & (stream.behaviour == name)))
        for name in np.unique(stream.behaviour[frauds])
    }


def share_in(hits: Bools, of: Bools) -> Share:
    """Return the share of `of` bool [N] that are `hits`, with its Wilson interval."""
    return share(int((hits & of).sum()), int(of.sum()))


def value_of(found: Share) -> float:
    """Return the share, NaN (which fails every check) where there was nothing."""
    return bound(found.value)


def bound(value: float | None) -> float:
    """Return `value`, NaN for None."""
    return float("nan") if value is None else value


def shown(found: Share) -> list[float | None]:
    """Return value, lower and upper bound, rounded, and of how many."""
    values = (found.value, found.low, found.high)
    return [*(None if value is None else round(value, 3) for value in values), found.total]


if __name__ == "__main__":
    main()
