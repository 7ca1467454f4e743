"""What the served decisions were worth against the truth, period by period of the live stream."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraudstream.core.evaluation import Share

Bools = NDArray[np.bool_]
ROUNDS = 1_000
BY_TERMINAL = ("compromised_terminal", "shell_merchant")
"""Frauds of these behaviours come in clusters by terminal, all others by customer."""


class Truth(msgspec.Struct, frozen=True):
    """The N live transactions as the source knows them, in its order.

    `event_time_ms` int64 [N], `fraud` bool [N], `amount_minor` int64 [N], `incident` [N]: transactions of
    one incident share a number.
    """

    ids: list[str]
    event_time_ms: NDArray[np.int64]
    fraud: Bools
    amount_minor: NDArray[np.int64]
    incident: NDArray[np.int64]


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of the live stream by event time, UTC ms, and what its alerts were worth.

    Intervals are of 95 %, by a bootstrap over incidents. `amount_recall`: share of the defrauded amount
    that was alerted.
    """

    name: str
    from_ms: int
    to_ms: int
    versions: tuple[str, ...]
    transactions: int
    frauds: int
    recall: Share
    precision: Share
    amount_recall: float | None


class Retrained(msgspec.Struct, frozen=True):
    """Recall of the first model on the frauds that a later one decided on, and the paired gain, 95 %."""

    recall_without: float
    gain: float
    gain_low: float
    gain_high: float


def truth_of(rows: pa.Table) -> Truth:
    """Return the truth about `rows` of a canonical table."""
    fraud = np.asarray(rows["is_fraud"], dtype=bool)
    behaviour = np.array(rows["behaviour"].to_pylist() if "behaviour" in rows.column_names else [])
    shared = np.isin(behaviour, BY_TERMINAL) if len(behaviour) else np.zeros(len(fraud), bool)
    names = [np.array(rows[name].to_pylist(), dtype=np.str_) for name in ("customer", "terminal")]
    _, incident = np.unique(np.where(shared, *names[::-1]), return_inverse=True)
    return Truth(
        [str(name) for name in rows["transaction_id"].to_pylist()],
        np.asarray(rows["event_time_ms"]).astype(np.int64),
        fraud,
        np.asarray(rows["amount_minor"]).astype(np.int64),
        incident.astype(np.int64),
    )


def period(
    name: str, truth: Truth, chosen: Bools, alerted: Bools, versions: tuple[str, ...]
) -> Period:
    """Return the period of the rows `chosen` bool [N]; `alerted` bool [N]: decided to be alerts."""
    caught = truth.fraud & alerted & chosen
    frauds, alerts = truth.fraud & chosen, alerted & chosen
    stolen = int(truth.amount_minor[frauds].sum())
    times = truth.event_time_ms[chosen]
    return Period(
        name=name,
        from_ms=int(times.min()) if len(times) else 0,
        to_ms=int(times.max()) if len(times) else 0,
        versions=versions,
        transactions=int(chosen.sum()),
        frauds=int(frauds.sum()),
        recall=share_of(caught, frauds, truth.incident),
        precision=share_of(caught, alerts, truth.incident),
        amount_recall=round(int(truth.amount_minor[caught].sum()) / stolen, 4) if stolen else None,
    )


def share_of(hits: Bools, of: Bools, incident: NDArray[np.int64]) -> Share:
    """Return the share of `of` bool [N] that are `hits`, with a percentile bootstrap over incidents.

    Frauds of one incident are found or missed together, so that their number says less than it seems.
    """
    total = int(of.sum())
    if not total:
        return Share(0, 0, None, None, None)
    low, high = _interval(hits[of], incident[of])
    count = int(hits[of].sum())
    return Share(count, total, count / total, low, high)


def gain_of(found: Bools, alone: Bools, incident: NDArray[np.int64]) -> Retrained:
    """Return what `found` bool [N] has more than `alone` bool [N], of the same N frauds.

    Paired: each round of the bootstrap draws incidents once for both.
    """
    low, high = _interval(found.astype(np.float64) - alone, incident)
    without = float(alone.mean())
    gain = float(found.mean()) - without
    return Retrained(*(round(each, 4) for each in (without, gain, low, high)))


def _interval(values: NDArray[Any], incident: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `values` [N], resampling whole incidents [N]."""
    _, cluster = np.unique(incident, return_inverse=True)
    sizes = np.bincount(cluster)
    sums = np.bincount(cluster, weights=values)
    drawn = np.random.default_rng(0).integers(0, len(sizes), (ROUNDS, len(sizes)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)
