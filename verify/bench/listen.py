"""Listens to the scores of a long run and says by the minute how long they took; nothing is kept but counts.

Run as a process of its own: `python -m verify.bench.listen SETTINGS-AS-JSON FIRST COUNT RATE FILE`. Says
`ready`, is then told on standard input when the first transaction was due (nanoseconds since 1970), and
leaves its `Heard` in FILE once all scores were read, or nothing came for a while.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.settings import Settings
from verify.bench.arrivals import QUIET_S, hear, number_of, scores_from_now

MINUTE_S = 60.0


class Minute(msgspec.Struct, frozen=True):
    """Milliseconds from the intended time to the reader, of the transactions due in one minute."""

    transactions: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Heard(msgspec.Struct, frozen=True):
    """What came of a run: by minute, and how many of its transactions have no score, or more than one."""

    minutes: list[Minute]
    lost: int
    duplicates: int


def main() -> None:
    """Listen until the last score."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    first, count, rate = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    consumer = scores_from_now(settings)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start_ns = int(sys.stdin.readline())
    took_ms = np.zeros(count, np.float32)
    times = np.zeros(count, np.uint8)
    heard_s = monotonic_s()
    begun_s, n = heard_s, 0
    while n < count and (
        monotonic_s() - heard_s < QUIET_S or monotonic_s() - begun_s < count / rate
    ):
        at, scores = hear(consumer)
        if not scores:
            continue
        heard_s = monotonic_s()
        numbers = np.array([number_of(score) for score in scores])
        numbers = numbers[(numbers >= first) & (numbers < first + count)] - first
        n += int((times[np.unique(numbers)] == 0).sum())
        np.add.at(times, numbers, 1)
        took_ms[numbers] = (at - start_ns) / 1e6 - numbers / rate * 1e3
    minutes = by_minute(took_ms, times, rate)
    heard = Heard(minutes, int((times == 0).sum()), int((times[times > 1] - 1).sum()))
    Path(sys.argv[5]).write_bytes(msgspec.json.encode(heard))


def by_minute(took_ms: np.ndarray, times: np.ndarray, rate: float) -> list[Minute]:
    """Return a line for each minute in which transactions were due; `times` how often each came."""
    step = round(rate * MINUTE_S)
    minutes = []
    for begin in range(0, len(times), step):
        some = took_ms[begin : begin + step][times[begin : begin + step] > 0]
        if len(some):
            p50, p99, most = np.percentile(some, [50, 99, 100]).round(1).tolist()
            minutes.append(Minute(len(some), p50, p99, most))
    return minutes


if __name__ == "__main__":
    main()
