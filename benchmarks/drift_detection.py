"""How soon does the monitor see drift, and how often does it cry wolf? Without any server.

    .venv/bin/python -m benchmarks.drift_detection --seeds 1-5 --json FILE

Streams of the generator, the nine features by the twin, a model as the trainer makes it on day 35, and the
service's own state (monitoring/watching.py) fed with what that model scores from then on. From day 45 on
amounts are half as large again (sudden), or grow by 2 % a day (gradual), or stay (none). Beside the service's
hysteresis: a single day's PSI of 0.1, and a single day's KS of 0.1, each of the score or any feature.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.drift_offline import Stream, stream_of
from benchmarks.drift_story import numbers
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.model import FloatArray
from fraudstream.core.reference import Reference, reference_of
from monitoring.drift import Levels
from monitoring.reports import DayReport, DriftReport
from monitoring.watching import Scored, State, Watching
from producer.generator import generate, make_parameters
from trainer.build import build, labels_in_force, newest
from trainer.export import convert, scoring
from trainer.fit import fit

Floats = NDArray[np.float64]
DAYS, TRAINING, ONSET = 75, 35, 45
SIZE = {"days": DAYS, "customers": 1_000, "terminals": 750}
"""1,700 transactions a day: the fewer, the more chance moves a day away from the reference."""
CALM_DAYS = DAYS - ONSET
"""So many days a stream without drift is watched over, from the day on which the others begin to drift."""
KINDS: dict[str, Callable[[Floats], Floats]] = {
    "none": np.ones_like,
    "sudden": lambda days: np.where(days >= 0, 1.5, 1.0),
    "gradual": lambda days: 1.02 ** np.maximum(days, 0),
}
"""By what amounts are multiplied, given the days since the onset (before it below 0)."""


def main() -> None:
    """Print delays and false alarms by detector; end with 1 if the service's are not as they should be."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--seeds", default="1-5", help="such as 1-5 or 3,7")
    arguments.add_argument("--json", type=Path, help="also write the report there")
    chosen = arguments.parse_args()
    found = {kind: [seen(seed, kind) for seed in numbers(chosen.seeds)] for kind in KINDS}
    report: dict[str, object] = {
        name: judged(name, found) for name in ("hysteresis", "psi_one_day", "ks_one_day")
    }
    report["holds"] = holds(found)
    text = json.dumps(report, indent=2)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    raise SystemExit(0 if report["holds"] else 1)


def seen(seed: int, kind: str) -> dict[str, list[int]]:
    """Return by detector the days since the onset on which it raised an alarm."""
    stream = stream_of(drifting(generate(make_parameters(SIZE | {"seed": seed})), kind))
    watching = Watching(State(), label_delay_ms=NINE.label_delay_ms, levels=Levels())
    alarms: dict[str, list[int]] = {"hysteresis": [], "psi_one_day": [], "ks_one_day": []}
    for day, report in reports(stream, watching):
        if isinstance(report, DriftReport) and report.drifts:
            alarms["hysteresis"].append(day)
        if isinstance(report, DayReport) and report.score is not None:
            distances = [report.score, *report.features.values()]
            if max(each.psi for each in distances) >= 0.1:
                alarms["psi_one_day"].append(day)
            if max(each.ks for each in distances) >= 0.1:
                alarms["ks_one_day"].append(day)
    return alarms


def drifting(table: pa.Table, kind: str) -> pa.Table:
    """Return the table with its amounts multiplied."""
    times = table["event_time_ms"].to_numpy()
    days = (times - times[0]) / DAY_MS - ONSET
    amounts = np.rint(table["amount_minor"].to_numpy() * KINDS[kind](days)).astype(np.int64)
    place = table.schema.get_field_index("amount_minor")
    return table.set_column(place, table.schema.field(place), pa.array(amounts))


def reports(stream: Stream, watching: Watching) -> Iterator[tuple[int, DayReport | DriftReport]]:
    """Yield what the service tells of each day after the training, with the day since the onset."""
    scores, reference = scored(stream)
    watching.follow("1", reference)
    ids = stream.log.ids()
    for day in range(TRAINING, DAYS):
        rows = np.flatnonzero((stream.day >= day) & (stream.day < day + 1))
        watching.scores(
            [
                Scored(
                    ids[i],
                    int(stream.log.event_time_ms[i]),
                    stream.log.features[i].tolist(),
                    float(scores[i]),
                    "pass",
                    "1",
                )
                for i in rows.tolist()
            ]
        )
        until_ms = stream.start_ms + (day + 1) * DAY_MS + DAY_MS // 2
        for report in watching.due(until_ms):
            if isinstance(report, DayReport | DriftReport):
                yield day - ONSET, report


def scored(stream: Stream) -> tuple[FloatArray, Reference]:
    """Return the scores of a model of day TRAINING, and what the newest traffic was like then."""
    as_of_ms = stream.start_ms + TRAINING * DAY_MS
    delay_ms = NINE.label_delay_ms
    known = labels_in_force(stream.reports, as_of_ms)
    mature = build(stream.log, known, as_of_ms=as_of_ms, label_delay_ms=delay_ms, days=None)
    served = scoring(convert(fit(mature.features, mature.labels, seed=0)))
    before = stream.log.event_time_ms <= as_of_ms
    young = newest(stream.log, as_of_ms=as_of_ms, label_delay_ms=delay_ms)
    assert len(young) <= before.sum()
    return served(stream.log.features), reference_of(served(young), young, NINE.features)


def false_alarms(detector: str, found: dict[str, list[int]]) -> float:
    """Return how often a detector raised an alarm in 30 days without drift."""
    return len([day for day in found[detector] if day >= 0]) * 30 / CALM_DAYS


def holds(found: dict[str, list[dict[str, list[int]]]]) -> bool:
    """Return whether the service saw all drift, with at most one false alarm in 30 days without any."""
    calm = all(false_alarms("hysteresis", each) <= 1 for each in found["none"])
    alarms = [each["hysteresis"] for kind in ("sudden", "gradual") for each in found[kind]]
    return calm and all(max(days, default=-1) >= 0 for days in alarms)


def judged(detector: str, found: dict[str, list[dict[str, list[int]]]]) -> dict[str, object]:
    """Return delays in days (of those that were seen) and false alarms of one detector."""
    false = [false_alarms(detector, each) for each in found["none"]]
    early = [len([d for d in each[detector] if d < 0]) for each in found["none"]]
    report: dict[str, object] = {
        "false_alarms_in_30_days": round(sum(false) / len(false), 2),
        "false_alarms_in_the_10_days_after_training": round(sum(early) / len(early), 2),
    }
    for kind in ("sudden", "gradual"):
        after = [[d for d in each[detector] if d >= 0] for each in found[kind]]
        delays = [min(days) + 1 for days in after if days]
        report[f"{kind}_seen"] = f"{len(delays)} of {len(after)}"
        report[f"{kind}_delay_days"] = float(np.median(delays)) if delays else None
        report[f"{kind}_worst_delay_days"] = max(delays, default=None)
    return report


if __name__ == "__main__":
    main()
