"""A second feature set filled and taken up under traffic: how fast, and how long a transaction waits for it.

    .venv/bin/python -m benchmarks.live_sets [--days 40] [--rate 1000] [--workers 2] [--json FILE]

Starts a stack of its own (two minutes in all): history unpaced, then live traffic, during which the set
`windows` is filled. `age` is the time from a transaction's Kafka timestamp to its score.
"""

import argparse
import json
import threading
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.whole_file import own_stack
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.scores import Score
from fraudstream.core.settings import Settings
from producer.generator import make_parameters, source
from producer.pace import AtRate, Unpaced
from producer.replay import ReplayPlan, replay_table
from verify.demo.children import Children
from verify.demo.scored import await_scored
from verify.ledger import Log

LIVE_S = 30
WARM_S = 8
AROUND_MS = 1_000


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--days", type=int, default=40)
    arguments.add_argument("--rate", type=int, default=1_000)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--json", type=Path)
    values = arguments.parse_args()
    with own_stack() as settings:
        text = json.dumps(measure(settings, values), indent=2)
    print(text)
    if values.json:
        values.json.write_text(text)


def measure(settings: Settings, values: argparse.Namespace) -> dict[str, object]:
    """Send history, then live traffic with a fill in it; return what the scores tell of both."""
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )
    stream = source(make_parameters({"customers": 5_000, "terminals": 10_000, "days": values.days}))
    history = stream.table.num_rows - LIVE_S * values.rate
    report = Path(settings.state_dir) / "fill.json"
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        for number in range(values.workers):
            children.start(f"scorer-{number}", "scorer")
        plan = ReplayPlan(pace=Unpaced(), client="confluent", limit=history)
        replay_table(settings, stream, plan)
        await_scored(settings, children, worker="scorer-0")
        plan = ReplayPlan(pace=AtRate(values.rate), client="confluent")
        sending = threading.Thread(target=replay_table, args=(settings, stream, plan))
        sending.start()
        sending.join(WARM_S)
        children.run("fill", "features", "fill", "windows", "--json", str(report))
        sending.join()
        await_scored(settings, children, worker="scorer-0")
    with Log(settings) as log:
        decoder = msgspec.json.Decoder(Score)
        scores = [decoder.decode(record.value or b"") for record in log.records("scores")]
    live = sorted(scores, key=lambda each: each.source_timestamp_ms)[history:]
    filled = json.loads(report.read_text())
    return {"filled": filled, "transactions": len(scores)} | waits(live)


def waits(live: list[Score]) -> dict[str, object]:
    """Return quantiles of the age in ms: before the fill, during it, as the set goes live, after."""
    sent = np.array([each.source_timestamp_ms for each in live])
    age = np.array([each.age_ms for each in live])
    has = np.array([each.other_sets is not msgspec.UNSET for each in live])
    taken_up = int((sent + age)[has].min())
    begin = int(sent.min()) + WARM_S * 1_000
    spans = {
        "before_fill": (begin - 5_000, begin),
        "during_fill": (begin, taken_up - AROUND_MS),
        "going_live": (taken_up - AROUND_MS, taken_up + AROUND_MS),
        "two_sets": (taken_up + AROUND_MS, int(sent.max()) + 1),
    }
    found: dict[str, object] = {}
    for name, (first, last) in spans.items():
        ages = age[(sent >= first) & (sent < last)]
        if len(ages):
            p50, p99 = np.quantile(ages, (0.5, 0.99))
            found[name] = {"p50_ms": int(p50), "p99_ms": int(p99), "most_ms": int(ages.max())}
    return found


if __name__ == "__main__":
    main()
