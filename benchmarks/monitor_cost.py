"""What the monitor costs a score: `.venv/bin/python -m benchmarks.monitor_cost [--json FILE]`.

Scores as they stand in the topic, 1 % of them alerts, the nine features compared, through the service's own
decoding and counting, beside decoding alone. Reading from Kafka comes on top, in librdkafka's own threads.
"""

import click
import msgspec
import numpy as np

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.report_file import json_option, write_json
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.reference import reference_of
from monitoring.drift import Levels
from monitoring.watching import Scored, State, Watching

SCORES, BATCH, REPEATS = 100_000, 2_000, 3
WANTED_PER_S = 20_000
START_MS = 19_000 * DAY_MS


class Report(msgspec.Struct, frozen=True):
    """Microseconds a score, least of the repeats; `core_share` at 20,000 scores a second."""

    decoding_us: float
    whole_us: float
    core_share: float
    holds: bool


def main_report() -> Report:
    """Measure."""
    features = np.random.default_rng(1).random((SCORES, len(NINE.features))).astype(np.float32)
    values = [encoded(i, row) for i, row in enumerate(features.tolist())]
    reference = reference_of(np.linspace(0, 1, 10_000), features, NINE.features)
    decoder = msgspec.json.Decoder(Scored)
    decoding, whole = [], []
    for _ in range(REPEATS):
        began_s = monotonic_s()
        for first in range(0, SCORES, BATCH):
            [decoder.decode(value) for value in values[first : first + BATCH]]
        decoding.append(monotonic_s() - began_s)
        watching = Watching(State(), label_delay_ms=NINE.label_delay_ms, levels=Levels())
        watching.follow("1", reference)
        began_s = monotonic_s()
        for first in range(0, SCORES, BATCH):
            watching.scores([decoder.decode(value) for value in values[first : first + BATCH]])
        watching.due(START_MS + 30 * DAY_MS)
        whole.append(monotonic_s() - began_s)
    us = 1e6 / SCORES
    share = min(whole) / SCORES * WANTED_PER_S
    return Report(
        round(min(decoding) * us, 2), round(min(whole) * us, 2), round(share, 2), share < 1
    )


def encoded(i: int, row: list[float]) -> bytes:
    """Return a score as the scorer writes it, 3,400 of them a day."""
    return msgspec.json.encode(
        {
            "v": 1,
            "transaction_id": f"bench-{i:09d}",
            "event_time_ms": START_MS + i * DAY_MS // 3_400,
            "customer": f"C{i % 5_000:07d}",
            "terminal": f"T{i % 10_000:07d}",
            "amount_minor": 1_299,
            "currency": "EUR",
            "source_partition": i % 8,
            "source_offset": i,
            "source_timestamp_ms": START_MS + i,
            "score": row[0],
            "decision": "alert" if i % 100 == 0 else "pass",
            "threshold": 0.5,
            "model_version": "1",
            "challenger_score": None,
            "feature_set": NINE.hash,
            "features": row,
            "apply_seq": i,
            "duplicate_of": None,
            "age_ms": 12,
            "stale": False,
            "stages": {"waiting": 1.0, "features": 2.0, "model": 0.5, "until_produce": 4.0},
        }
    )


@click.command()
@json_option
def main(json_file: str | None) -> None:
    """Measure, print, and end with 1 if a core could not do 20,000 scores a second."""
    report = main_report()
    if json_file:
        write_json(report, json_file)
    if json_file != "-":
        click.echo(
            f"a score takes {report.whole_us} us, {report.decoding_us} of them decoding: "
            f"{report.core_share:.0%} of a core at {WANTED_PER_S:,} a second"
        )
    raise SystemExit(0 if report.holds else 1)


if __name__ == "__main__":
    main()
