"""What a chaos run found, as it is written and judged."""

import msgspec

from verify.chaos.oracle import Verdict
from verify.chaos.watch import ASKED_MS, Recovery

ENOUGH = 5
"""So many recoveries of a kind say something of the product, and not of the moment."""
REBUILT_MS, REBUILT_PER_MS = ASKED_MS["redis_back"], 30.0
"""An emptied Redis may take as long as one that comes back, and as its records at 30,000 a second."""


class Rebuilt(msgspec.Struct, frozen=True):
    """An emptied Redis: records sent by then, and ms from the emptying to the first commit."""

    records: int
    ms: float

    @property
    def late(self) -> bool:
        """Whether it took longer than is asked."""
        return self.ms > REBUILT_MS + self.records / REBUILT_PER_MS


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one run; `never_hit`: planned points at which no worker died.

    `not_passed_in_time`: how often a worker did not come by the point at which it was to die, and the kill
    was tried again. `kills` counts workers, servers are among `others`. `recovery_ms` runs from the end of a
    fault to the first commit, where Redis was the victim to the first of records polled after it.
    `unplanned_ends`: workers that ended though nobody had killed or frozen them.
    """

    seed: int
    sabotage: str | None
    transactions: int
    sent_per_s: float
    seconds: float
    two_or_more_workers_share: float
    kills: int
    kills_by_point: dict[str, int]
    never_hit: list[str]
    not_passed_in_time: dict[str, int]
    others: dict[str, int]
    redelivered_records: int
    scores_compared: int
    scores_by_version: dict[str, int]
    entities_compared: int
    lost: int
    duplicates: int
    unfounded: int
    mismatched: int
    state_differences: int
    score_differences: int
    differences: list[str]
    recovery_ms: dict[str, Recovery]
    rebuilds: list[Rebuilt]
    unplanned_ends: list[str]

    @property
    def shortcomings(self) -> list[str]:
        """Return all that falls short, in words: what is `wrong`, and what took too long."""
        return self.wrong + self._slow

    @property
    def wrong(self) -> list[str]:
        """Return what is wrong, in words; empty if the product held and the run proves it."""
        counts = {
            "lost": self.lost,
            "duplicates": self.duplicates,
            "unfounded results": self.unfounded,
            "mismatched results": self.mismatched,
            "state differences": self.state_differences,
            "score differences": self.score_differences,
        }
        found = [f"{name} {count:,}" for name, count in counts.items() if count]
        found += [f"point {point} was never hit" for point in self.never_hit]
        if not self.redelivered_records:
            found.append("nothing was redelivered: the run proves nothing")
        return found

    @property
    def _slow(self) -> list[str]:
        """Return the kinds of recovery that mostly take longer than is asked."""
        found = [
            f"recovery of {kind} took {took.median / 1000:.1f} s, asked are {ASKED_MS[kind] / 1000:.0f}"
            for kind, took in self.recovery_ms.items()
            if took.count >= ENOUGH and took.median > ASKED_MS.get(kind, float("inf"))
        ]
        late = sum(each.late for each in self.rebuilds)
        if len(self.rebuilds) >= ENOUGH and late * 2 > len(self.rebuilds):
            found.append(f"{late} of {len(self.rebuilds)} rebuilds were slower than is asked")
        return found


def make_report(verdict: Verdict, run: dict[str, object]) -> Report:
    """Return the report of a run: what happened, in `run`, and what came out."""
    ledger = verdict.ledger
    found: dict[str, object] = {
        "scores_compared": verdict.scores_compared,
        "scores_by_version": verdict.scores_by_version,
        "entities_compared": verdict.entities_compared,
        "lost": ledger.lost + ledger.waiting,
        "duplicates": ledger.duplicates,
        "unfounded": ledger.unfounded,
        "mismatched": ledger.mismatched,
        "state_differences": verdict.state_differences,
        "score_differences": verdict.score_differences,
        "differences": verdict.differences,
        "transactions": ledger.transactions,
    }
    return msgspec.convert(found | run, Report)
