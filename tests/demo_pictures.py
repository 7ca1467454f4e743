"""Pictures of a demo that never ran, for tests and the benchmark of its live view."""

import math

from fraudstream.core.evaluation import share
from fraudstream.core.feature_set import DAY_MS
from verify.demo.state import AlertLine, Latency, Picture, Series, VersionChange

FIRST_DAY_MS = 1_525_132_800_000
"""2018-05-01T00:00:00Z."""


def empty() -> Picture:
    """Return the picture before anything is known."""
    return Picture(scenario="drift", step="starting", elapsed_s=0.4)


def moving(second: float, *, points: int = 120) -> Picture:
    """Return a picture of the story's end; numbers, charts, alerts and lines move with `second`."""
    now = int(second)
    fallen = (
        "recall has fallen to 41% of 96 frauds known of the last 7 days; waiting for the labels"
    )
    count = 123_456 + 1_100 * now
    days = 30
    recall = tuple(0.88 if d < 8 or d > 18 else 0.35 + 0.02 * (d % 3) for d in range(days - 2))
    return Picture(
        scenario="drift",
        step="recall recovers",
        elapsed_s=154.2 + second,
        event_time_ms=FIRST_DAY_MS + (days - 1) * DAY_MS + now * 60_000,
        transactions=count,
        scored=count - 46,
        dead_letters=0,
        waiting=46,
        difference=0,
        checked=count - 1_200,
        rate_per_s=1_098.0 + now % 7,
        alerts=523 + now,
        alerts_per_min=42.0,
        latency=Latency(13.6, 38.2 + now % 5, 3.1, 4.0, 0.6, 2.2),
        versions=(
            VersionChange("1", 31.0, FIRST_DAY_MS + 3_600_000),
            VersionChange("2", 121.4, FIRST_DAY_MS + 19 * DAY_MS),
        ),
        recall=share(114, 132),
        precision=share(102, 110),
        matured=12_345 + now,
        promised_recall=0.87,
        series=Series(
            tuple(1_100 + 90 * math.sin((now + i) / 5) for i in range(points)),
            tuple(40 + 20 * math.sin((now + i) / 11) for i in range(points)),
            tuple(None if i < 30 else 30 + 10 * abs(math.sin(now + i)) for i in range(points)),
            (*recall, None, None),
            (*(0.93 - 0.01 * (d % 4) for d in range(days - 7)), *[None] * 7),
        ),
        last_alerts=tuple(_alert(now + i) for i in range(30)),
        story=(
            "   0.0 s  generating 75 days of transactions (seed 7)",
            "  14.8 s  replaying 152,345 past transactions unpaced; no model yet, features are logged",
            "  31.0 s  fitted on the days before, it found 87% of 131 frauds that it had not seen",
            f"  74.3 s  {fallen} of these days",
            " 108.9 s  retraining from what was served, while traffic goes on",
            f" {121.4 + now:.1f} s  version 2 serves, from one batch to the next",
        ),
    )


def _alert(number: int) -> AlertLine:
    return AlertLine(
        event_time_ms=FIRST_DAY_MS + 29 * DAY_MS + number * 137_000,
        amount_minor=1_234 + number * 7_919 % 90_000,
        currency="EUR",
        customer=f"c{number}",
        terminal=f"t{number % 97}",
        score=0.9 + number % 100 / 1_000,
        alert_id=f"{number % 8}-{number}",
        unusual=(
            f"amount_ratio {4 + number % 9}.2 (usual 0.93)",
            "terminal_fraud_run 6 (usual 0)",
            "max_ratio_14d 7.1 (usual 1.8)",
        ),
    )
