"""What was asked of the benchmarks on two cores that do nothing else, beside what was found.

A benchmark fails for what is wrong on any machine (a score lost, a peer badly written). Whether an aim is
reached depends on the machine, so that is told, and judged by who reads it.
"""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from verify.bench.latency import LatencyBench
    from verify.bench.pipeline import PipelineBench

LATENCIES_MS = {1_000: (30.0, 60.0), 10_000: (50.0, 100.0)}
"""p99 and p99.9 that are asked, by transactions a second."""


class Aim(msgspec.Struct, frozen=True):
    """A figure: at least what is `asked`, or at most where `at_most`."""

    name: str
    asked: float
    found: float
    at_most: bool
    reached: bool

    def sentence(self) -> str:
        """Return it as a line of the report."""
        bound = "at most" if self.at_most else "at least"
        word = "reached" if self.reached else "not reached"
        return f"asked: {self.name} {bound} {self.asked:,g}: {self.found:,g}, {word}"


def at_least(name: str, asked: float, found: float) -> Aim:
    """Return an aim that more is better for."""
    return Aim(name, asked, found, at_most=False, reached=found >= asked)


def at_most(name: str, asked: float, found: float) -> Aim:
    """Return an aim that less is better for."""
    return Aim(name, asked, found, at_most=True, reached=found <= asked)


def of_pipeline(report: "PipelineBench") -> list[Aim]:
    """Return the aims of a backlog; peers that were left out have none.

    Two workers reach theirs by their rate, or where Redis is the limit: 90 % of its core.
    """
    one, two = report.product, report.two_workers
    peers = {"faust_agent": 18.0, "quix_streams": 8.0}
    ratios = [
        at_least(f"times {name.replace('_', ' ')}", asked, found)
        for name, asked in peers.items()
        if (found := report.ratio.get(name)) is not None
    ]
    rate = at_least("two workers, transactions a second", 35_000, two.tx_per_s)
    busy = at_least("two workers, share of the Redis core", 0.9, two.redis_core_share)
    return [
        at_least("one worker, transactions a second", 25_000, one.tx_per_s),
        at_most("one worker, us a transaction", 15, one.cpu_us_per_tx),
        busy if busy.reached and not rate.reached else rate,
        *ratios,
    ]


def of_latency(report: "LatencyBench") -> list[Aim]:
    """Return the aims of the rate, none at another than those two."""
    asked = LATENCIES_MS.get(round(report.sending.rate))
    if asked is None:
        return []
    return [
        at_most("p99 ms", asked[0], report.p99_ms),
        at_most("p99.9 ms", asked[1], report.p999_ms),
    ]
