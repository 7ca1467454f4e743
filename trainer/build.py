"""Hop 2 of training: logged scores and labels become rows that may be learned from."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fraudstream.clients.score_log import ScoreLog
from fraudstream.core.errors import TooLittle
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.model import FloatArray
from fraudstream.core.transaction import Feedback

MIN_FRAUDS = 20
"""Fewer known frauds than this in the fitted part teach nothing that lasts."""
MIN_VALIDATION_FRAUDS = 5


@dataclass(frozen=True)
class Dataset:
    """N labelled transactions in order of event time.

    `features` float32 [N, F], `labels` bool [N] (True is fraud), `event_time_ms` int64 [N],
    `customers` str [N].
    """

    features: FloatArray
    labels: npt.NDArray[np.bool_]
    event_time_ms: npt.NDArray[np.int64]
    customers: npt.NDArray[np.str_]

    def rows(self, wanted: npt.NDArray[np.bool_]) -> "Dataset":
        """Return the rows where `wanted` bool [N] is True."""
        return Dataset(
            self.features[wanted],
            self.labels[wanted],
            self.event_time_ms[wanted],
            self.customers[wanted],
        )


def labels_in_force(feedback: Iterable[Feedback], as_of_ms: int) -> dict[str, str]:
    """Return the label in force at `as_of_ms` by transaction id.

    Of the labels with labelled_at_ms <= as_of_ms the latest wins, ties by place in `feedback`
    (offset order). `unsure` in force stands in the result; it counts as no label.
    """
    latest: dict[str, Feedback] = {}
    for answer in feedback:
        if answer.labelled_at_ms > as_of_ms:
            continue
        known = latest.get(answer.transaction_id)
        if known is None or answer.labelled_at_ms >= known.labelled_at_ms:
            latest[answer.transaction_id] = answer
    return {transaction_id: answer.label for transaction_id, answer in latest.items()}


def build(
    log: ScoreLog,
    labels: dict[str, str],
    *,
    as_of_ms: int,
    label_delay_ms: int,
    days: int | None = None,
) -> Dataset:
    """Return the rows whose label is mature at `as_of_ms`: event time + label delay <= as_of.

    A row is fraud if the label in force says so, genuine otherwise. `days` keeps only the newest days
    of them.
    """
    newest_ms = as_of_ms - label_delay_ms
    mature = log.event_time_ms <= newest_ms
    if days is not None:
        mature &= log.event_time_ms > newest_ms - days * DAY_MS
    fraud = np.array([labels.get(each) == "fraud" for each in log.transaction_ids], np.bool_)
    order = np.argsort(log.event_time_ms, kind="stable")
    order = order[mature[order]]
    return Dataset(
        features=log.features[order],
        labels=fraud[order],
        event_time_ms=log.event_time_ms[order],
        customers=np.array(log.customers, np.str_)[order],
    )


def newest(log: ScoreLog, *, as_of_ms: int, label_delay_ms: int) -> FloatArray:
    """Return features float32 [M, F] of the rows that are too young to learn from: traffic as it is now."""
    young = (log.event_time_ms > as_of_ms - label_delay_ms) & (log.event_time_ms <= as_of_ms)
    return log.features[young]


def split(dataset: Dataset, validation_share: float) -> tuple[Dataset, Dataset, int]:
    """Return the earlier rows to fit, the later `validation_share` of them to validate, and the border in ms.

    Transactions of the same millisecond stay together, on the validation side.

    Raises:
        TooLittle: no mature row, or too few frauds on either side; says how many there are.
    """
    if len(dataset.labels) == 0:
        raise TooLittle(
            "no scored transaction is old enough to have a mature label: replay more history "
            "(the label delay is 7 days of event time), or give a later --as-of"
        )
    border_ms = int(dataset.event_time_ms[int(len(dataset.labels) * (1 - validation_share))])
    later = dataset.event_time_ms >= border_ms
    fit, validation = dataset.rows(~later), dataset.rows(later)
    frauds, validation_frauds = int(fit.labels.sum()), int(validation.labels.sum())
    if frauds < MIN_FRAUDS or validation_frauds < MIN_VALIDATION_FRAUDS:
        raise TooLittle(
            f"{frauds} known frauds in {len(fit.labels):,} transactions to fit and {validation_frauds} in "
            f"{len(validation.labels):,} to validate; at least {MIN_FRAUDS} and {MIN_VALIDATION_FRAUDS} "
            "are needed: replay more history with its labels, or give a later --as-of"
        )
    return fit, validation, border_ms
