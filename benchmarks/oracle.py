"""The nine features of a table by the twin and as they were served, how they differ, and labels to mislead.

What the proofs on whole files and the tests on small streams share. Features are float32 [N, 9] by row
of a canonical table, which is in order of event time; they are compared bit for bit.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraudstream.clients.score_log import read_scores
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Feedback
from fraudstream.core.twin import Twin
from producer.sources import Labels, event_times, feedback, labels, records

CHUNK_ROWS = 50_000
MISLED_SHARE = 0.02
"""So many of the transactions without a report get a wrong label."""


def nine_features(
    table: pa.Table, *, early: Sequence[Feedback] = (), reports: bool = True
) -> FloatArray:
    """Return the nine features by the twin, fed from `table` alone, in its order.

    The labels of the table are applied as they become known (not at all without `reports`), those of
    `early` before the first transaction.
    """
    twin = Twin()
    for answer in early:
        twin.label(answer)
    due = feedback(table, labels(table))[::-1] if reports else []
    features = np.empty((table.num_rows, len(NINE.features)), np.float32)
    for first in range(0, table.num_rows, CHUNK_ROWS):
        chunk = records(table, first, min(first + CHUNK_ROWS, table.num_rows))
        for row, transaction in enumerate(chunk, start=first):
            while due and due[-1].labelled_at_ms <= transaction.event_time_ms:
                twin.label(due.pop())
            features[row] = twin.apply(0, row, transaction).features
    return features


def served_features(settings: Settings, table: pa.Table) -> FloatArray:
    """Return the features in the committed scores of an environment; NaN where a row has no score.

    A score of another transaction than those of `table` fails.
    """
    log = read_scores(settings, NINE)
    ids = log.transaction_ids.combine_chunks()
    found = pc.index_in(ids, value_set=table["transaction_id"].combine_chunks())
    assert found.null_count == 0, f"{found.null_count} scores are of transactions not sent"
    features = np.full((table.num_rows, len(NINE.features)), np.nan, np.float32)
    features[np.asarray(found)] = log.features
    return features


def differences(one: FloatArray, other: FloatArray) -> dict[str, int]:
    """Return by feature in how many rows the bits differ."""
    bits = [np.ascontiguousarray(each).view(np.uint32) for each in (one, other)]
    counts = (bits[0] != bits[1]).sum(axis=0).tolist()
    return dict(zip(NINE.features, counts, strict=True))


def misleading(table: pa.Table, *, in_force: bool, seed: int = 0) -> list[Feedback]:
    """Return wrong labels about rows of `table`: of all reported frauds, and of some of the others.

    They stand in the log before the first transaction. Not `in_force`, none of them ever counts: that
    of a reported fraud is dated as its report, which comes later and overrules it in the moment in
    which both become known; those of the others are dated after the last row. In force, the first
    overrule the report one millisecond after it, and the others are known after one day.
    """
    dice = np.random.default_rng(seed)
    times, reported = event_times(table), labels(table)
    silent = np.setdiff1d(np.arange(table.num_rows), reported.rows)
    misled = dice.choice(silent, int(len(silent) * MISLED_SHARE), replace=False)
    never = np.full(len(misled), times[-1] + 1)
    genuine = Labels(reported.rows, reported.labelled_at_ms + int(in_force))
    fraud = Labels(misled, times[misled] + DAY_MS if in_force else never)
    wrong = [
        msgspec.structs.replace(answer, label=word)
        for answer, word in zip(
            feedback(table, genuine),
            dice.choice(["genuine", "unsure"], len(genuine.rows)).tolist(),
            strict=True,
        )
    ]
    return [*wrong, *feedback(table, fraud)]
