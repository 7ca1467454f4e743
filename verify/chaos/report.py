"""What a chaos run found, as it is written and judged."""

import msgspec

from verify.chaos.columns import NO_MODEL
from verify.chaos.fleet import End
from verify.chaos.oracle import Verdict
from verify.chaos.watch import ASKED_MS, Recovery

WHOLE = 100
"""From so many kills ordered on, shares of the time are judged as they are asked for: in a short run single
events make them up. Of 400 schedules each, one of 100 kills has a single worker for most of it, none of 200,
13 of 12."""
SHORT_SENT = 0.9
"""In a run that is shorter, what a server's last outage left unsent may be so much of all."""
RUN_SHARE = 0.5
"""Two workers or more must run for so much of the time."""
OWN_SHARE = 0.05
"""So much of it two or more must have had partitions. With a death every 2.8 s, and 2.3 s until the next one
has them, no more than about half of the time is left for that, and less where two workers are wanted."""
ENOUGH = 5
"""So many recoveries of a kind say something of the product, and not of the moment."""
LATE_SHARE = 0.25
"""So many of a kind may be late: each fault that comes into the recovery from the one before delays it."""
MANY = 20
"""Of fewer than so many recoveries the share that is late says little more than their median."""
WORST_MS = 60_000.0
"""No recovery may take longer, whatever came into it."""
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
    `unplanned_ends`: workers that ended though nobody had killed or frozen them. `sent_per_s` is by the
    transactions in the log and their timestamps, `rate_ordered` what was asked for. `two_or_more_workers_`:
    in which share of the time so many ran (`run`), and had partitions (`own`). `versions_promoted`: the one
    that was there first, and those swapped in.
    """

    seed: int
    sabotage: str | None
    transactions: int
    rate_ordered: int
    sent_per_s: float
    seconds: float
    two_or_more_workers_run_share: float
    two_or_more_workers_own_share: float
    kills_ordered: int
    kills: int
    kills_by_point: dict[str, int]
    never_hit: list[str]
    not_passed_in_time: dict[str, int]
    others: dict[str, int]
    redelivered_records: int
    scores_compared: int
    versions_promoted: list[str]
    scores_by_version: dict[str, int]
    entities_compared: int
    alerts_compared: int
    lost: int
    duplicates: int
    unfounded: int
    mismatched: int
    state_differences: int
    score_differences: int
    alert_differences: int
    differences: list[str]
    recovery_ms: dict[str, Recovery]
    rebuilds: list[Rebuilt]
    unplanned_ends: list[End]

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
            "alert differences": self.alert_differences,
        }
        found = [f"{name} {count:,}" for name, count in counts.items() if count]
        return found + self._unproven + self._crashed

    @property
    def _unproven(self) -> list[str]:
        """Return what the run was to do and did not: what it says of the rest is worth nothing then."""
        found = [f"point {point} was never hit" for point in self.never_hit] + self._unserved
        if self.kills < self.kills_ordered:
            found.append(f"only {self.kills:,} of {self.kills_ordered:,} kills came about")
        if not self.redelivered_records:
            found.append("nothing was redelivered: the run proves nothing")
        if self.scores_compared != self.transactions:
            found.append(
                f"scores compared {self.scores_compared:,}, transactions {self.transactions:,}"
            )
        if not self.alerts_compared:
            found.append("there was no alert: nothing is proven of them")
        return found + self._idle

    @property
    def _unserved(self) -> list[str]:
        """Return what is not proven of the swaps.

        Each promoted version must have scored something: no version is replaced, and no run ended, before its
        newest has (`Player`). The first was there before the workers, so no score may do without a model.
        """
        found = [
            f"version {version} was promoted and has scored nothing: nothing is proven of that swap"
            for version in self.versions_promoted
            if not self.scores_by_version.get(version)
        ]
        if without := self.scores_by_version.get(NO_MODEL):
            found.append(f"{without:,} scores without a model, which was there before the workers")
        return found

    @property
    def _idle(self) -> list[str]:
        """Return what of the load was not there."""
        whole = self.kills_ordered >= WHOLE
        found = []
        if self.sent_per_s < self.rate_ordered * (1 if whole else SHORT_SENT):
            found.append(f"sent {self.sent_per_s:,.1f} tx/s of {self.rate_ordered:,} ordered")
        if not whole:
            return found
        run, own = self.two_or_more_workers_run_share, self.two_or_more_workers_own_share
        if run < RUN_SHARE:
            found.append(f"two or more workers ran only {run:.0%} of the time")
        if own < OWN_SHARE:
            found.append(f"two or more workers had partitions only {own:.0%} of the time")
        return found

    @property
    def _crashed(self) -> list[str]:
        """Return the unplanned ends that the worker did not account for, all in one sentence."""
        crashed = [end for end in self.unplanned_ends if not end.explained]
        if not crashed:
            return []
        first = crashed[0]
        said = f"{first.log}, status {first.status}: {first.said}"
        return [f"{len(crashed)} workers ended unasked without a reason ({said})"]

    @property
    def _slow(self) -> list[str]:
        """Return the kinds of recovery that take longer than is asked: mostly, too often, far too long.

        An emptied Redis has an allowance of its own by what there is to read, which each must keep to.
        """
        found = []
        for kind, took in self.recovery_ms.items():
            found += _slow_recoveries(kind, took)
        if late := sum(each.late for each in self.rebuilds):
            found.append(f"{late} of {len(self.rebuilds)} rebuilds were slower than is asked")
        return found


def _slow_recoveries(kind: str, took: Recovery) -> list[str]:
    """Return in words how recoveries of a kind fall short, if anything is asked of it."""
    asked_ms = ASKED_MS.get(kind)
    if asked_ms is None:
        return []
    asked = f"asked are {asked_ms / 1000:.0f}"
    found = []
    if took.count >= ENOUGH and took.median > asked_ms:
        found.append(f"recovery of {kind} took {took.median / 1000:.1f} s, {asked}")
    if took.count >= MANY and len(took.late) > took.count * LATE_SHARE:
        found.append(f"{len(took.late)} of {took.count} recoveries of {kind} were late, {asked} s")
    if took.max > WORST_MS:
        found.append(f"a recovery of {kind} took {took.max / 1000:.1f} s, {asked}")
    return found


def make_report(verdict: Verdict, run: dict[str, object]) -> Report:
    """Return the report of a run: what happened, in `run`, and what came out."""
    ledger = verdict.ledger
    found: dict[str, object] = {
        "scores_compared": verdict.scores_compared,
        "scores_by_version": verdict.scores_by_version,
        "entities_compared": verdict.entities_compared,
        "alerts_compared": verdict.alerts_compared,
        "lost": ledger.lost + ledger.waiting,
        "duplicates": ledger.duplicates,
        "unfounded": ledger.unfounded,
        "mismatched": ledger.mismatched,
        "state_differences": verdict.state_differences,
        "score_differences": verdict.score_differences,
        "alert_differences": verdict.alert_differences,
        "differences": verdict.differences,
        "transactions": ledger.transactions,
        "sent_per_s": round(verdict.sent_per_s, 1),
    }
    return msgspec.convert(found | run, Report)
