"""The end of the demo in numbers, for machines and as a table for people."""

import msgspec
from rich.table import Table

from fraudstream.core.evaluation import Share
from verify.demo.periods import Period, Retrained


class Outage(msgspec.Struct, frozen=True):
    """What was killed, at which second, and seconds until a transaction sent afterwards had its score.

    None: the stream ended before there was one.
    """

    killed: str
    at_s: float
    recovered_s: float | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Counts are of all transactions, quality and latency of the live ones; `seconds` includes everything.

    `recall_before` and `precision_before`: from the moment the new fraud sets in until the swap;
    `_after`: by the retrained model; None where the scenario has no such period. `recall_without_retraining`:
    the first model on the transactions that the retrained one decided; `retraining` has
    the gain with its interval. `swap_longest_pause_ms`: the longest
    time between the last score of one version and the first of the next in a partition, None without a
    swap under traffic. `view_cpu_share`: of one core, watching and drawing, while traffic was live.
    """

    scenario: str
    transactions: int
    scored: int
    dead_letters: int
    alerts: int
    lost: int
    duplicates: int
    frauds: int
    average_precision: float | None
    lift_over_chance: float | None
    recall_before: float | None
    recall_after: float | None
    precision_before: float | None
    precision_after: float | None
    recall_without_retraining: float | None
    retraining: Retrained | None
    periods: tuple[Period, ...]
    outages: tuple[Outage, ...]
    model_versions: int
    swaps: int
    swap_longest_pause_ms: int | None
    p50_ms: float
    p99_ms: float
    rate_per_s: float
    seconds: float
    history_rate_per_s: float
    live_transactions: int
    view_cpu_share: float


def table(summary: Summary) -> Table:
    """Return the summary as a table for people."""
    s = summary
    ranking = "no fraud was live"
    if s.average_precision is not None and s.lift_over_chance is not None:
        ranking = f"{s.average_precision:.3f}, {s.lift_over_chance:.0f} times chance"
    rows = {
        "transactions": f"{s.transactions:,} in = {s.scored:,} scored + {s.dead_letters:,} dead letters",
        "lost, duplicates": f"{s.lost:,}, {s.duplicates:,} (by position, read with another client)",
        "history": f"{s.history_rate_per_s:,.0f} transactions/s, sent, scored and committed",
        "live": f"{s.live_transactions:,} at {s.rate_per_s:,.0f}/s, {s.frauds:,} frauds, {s.alerts:,} alerts",
        "average precision": ranking,
        **{p.name: _worth(p) for p in s.periods},
        **_alone(s),
        **_killed(s),
        "latency": f"p50 {s.p50_ms:.0f} ms, p99 {s.p99_ms:.0f} ms, from sending to a committed score",
        "model versions, swaps": f"{s.model_versions}, {s.swaps}{_pause(s)}",
        "the view's own cost": f"{s.view_cpu_share:.1%} of a core",
        "seconds": f"{s.seconds:.0f}, servers, history and training included",
    }
    grid = Table(title="summary", show_header=False, title_justify="left")
    for name, text in rows.items():
        grid.add_row(name, text)
    return grid


def in_words(share: Share) -> str:
    """Return a share with its interval, such as `0.61 (0.52 to 0.69)`."""
    if share.value is None:
        return "none"
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


def _worth(p: Period) -> str:
    amount = "" if p.amount_recall is None else f", {p.amount_recall:.0%} of the amount"
    return (
        f"recall {in_words(p.recall)} of {p.frauds:,} frauds{amount}; precision {in_words(p.precision)} "
        f"of {p.precision.total:,} alerts"
    )


def _alone(s: Summary) -> dict[str, str]:
    if s.retraining is None:
        return {}
    r = s.retraining
    return {
        "without retraining": (
            f"recall {r.recall_without:.2f} there by the first model: gain {r.gain:+.2f} "
            f"({r.gain_low:+.2f} to {r.gain_high:+.2f}, paired)"
        )
    }


def _killed(s: Summary) -> dict[str, str]:
    if not s.outages:
        return {}
    return {"killed": "; ".join(f"{o.killed} at {o.at_s:.0f} s, {_back(o)}" for o in s.outages)}


def _back(outage: Outage) -> str:
    if outage.recovered_s is None:
        return "not seen back before the stream ended"
    return f"back after {outage.recovered_s:.1f} s"


def _pause(s: Summary) -> str:
    if s.swap_longest_pause_ms is None:
        return ""
    return f"; longest pause of a partition at a swap {s.swap_longest_pause_ms:,} ms"
