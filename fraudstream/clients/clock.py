"""The one place that reads the wall clock; everything else is handed `now_ms`."""

import time


def now_ms() -> int:
    """Return the wall clock in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def now_ns() -> int:
    """Return the wall clock in UTC nanoseconds."""
    return time.time_ns()


def monotonic_s() -> float:
    """Return a clock in seconds that never goes back, for durations and deadlines."""
    return time.monotonic()


def process_cpu_s() -> float:
    """Return the seconds of CPU that this process has used, all its threads together."""
    return time.process_time()
