"""Are the served features exact, blind to the future, and as good as the design says? On a whole file.

    .venv/bin/python -m benchmarks.proof_of_features --data handbook.parquet --workers 1

1. Exact: all transactions and labels go through Kafka, Redis and the scorer, unpaced; the features in
   the committed scores must equal, bit for bit, those of the twin, which is fed from the file by itself
   in a second process. Control: a twin without labels, for which every amount is a cent higher.
2. Blind: once more in another environment up to `--cut` only, with wrong labels in the log that are in
   force at no transaction's time (`benchmarks/oracle.py`); no served feature may move. Control, up to
   `--control-cut`: the same wrong labels in force.
3. Quality: the protocol of `benchmarks/protocol.py`, learned and tested on the served features.

Prints JSON; ends with status 1 if something does not hold.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.oracle import differences, misleading, nine_features, served_features
from benchmarks.protocol import stated
from benchmarks.whole_file import own_stack, say, scorers, send
from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_log import as_array, read_to_end
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Feedback
from producer.sources import Source, cut, parse_time_ms, read_source
from verify.ledger import Log, count

FROM_LABELS = 5
"""Features from the sixth on depend on labels."""
FOLD_1 = {"train": [67_240, 598], "test": [58_264, 385]}
"""Rows and frauds of the Handbook's first fold."""
AP_BETWEEN = (0.755, 0.785)
"""Average precision of fold 1; above it lies a leak."""


def main() -> None:
    """Run the three proofs and print what was found as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="parquet or jsonl file")
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--cut", default="2018-07-25", help="the future from here on is dropped")
    arguments.add_argument("--control-cut", default="2018-05-15")
    arguments.add_argument("--seeds", type=int, default=3, help="so many models a fold")
    values = arguments.parse_args()
    began = monotonic_s()
    with own_stack() as settings:
        report = proof(settings, read_source(values.data), values)
    report["seconds"] = round(monotonic_s() - began)
    report["load_average"] = round(os.getloadavg()[0], 1)
    print(json.dumps(report, indent=2))
    sys.exit(0 if all(report[name]["holds"] for name in ("exact", "blind", "quality")) else 1)


def proof(settings: Settings, source: Source, values: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the three proofs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as beside:
        expected = beside.submit(nine_features, source.table)
        control = beside.submit(nine_features, a_cent_dearer(source.table), reports=False)
        served = live(settings, source, values.workers)
        facts = log_facts(settings)
        blindness = blind(settings, source, served, values)
        exact = compared(served, expected.result(), control.result())
    once = facts["scored"] == facts["transactions"] == len(served) and facts["balanced"]
    exact["holds"] = once and holds(exact, moved_from=0)
    say(f"exact: {exact['holds']}, {exact['differences']}")
    return {
        "workers": values.workers,
        "exact": facts | exact,
        "blind": blindness,
        "quality": quality(served, source.table, values.seeds),
    }


def live(
    settings: Settings, source: Source, workers: int, early: Sequence[Feedback] = ()
) -> FloatArray:
    """Send `source` after the labels `early`, have it scored; return what was served, by row."""
    send(settings, source, early)
    began = monotonic_s()
    with scorers(settings, workers):
        say(f"scored in {monotonic_s() - began:.0f} s")
    return served_features(settings, rows_of(source))


def blind(
    settings: Settings, source: Source, served: FloatArray, values: argparse.Namespace
) -> dict[str, Any]:
    """Return what of `served` moves without the future and with wrong labels, not in force and in force."""
    found: list[FloatArray] = []
    for name, until in (("not-in-force", values.cut), ("in-force", values.control_cut)):
        part = cut(source, to_ms=parse_time_ms(until, "--cut"))
        wrong = misleading(rows_of(part), in_force=name == "in-force")
        say(f"blind: {part.stop:,} transactions, {len(wrong):,} wrong labels {name}")
        elsewhere = msgspec.structs.replace(settings, environment=f"bench-{name}")
        found.append(live(elsewhere, part, values.workers, wrong))
    undisturbed = [served[: len(each)] for each in found]
    report: dict[str, Any] = {
        "cut": values.cut,
        "transactions": len(found[0]),
        "differences": differences(found[0], undisturbed[0]),
        "control_transactions": len(found[1]),
        "control_differences": differences(found[1], undisturbed[1]),
    }
    return report | {"holds": holds(report, moved_from=FROM_LABELS)}


def quality(served: FloatArray, table: pa.Table, seeds: int) -> dict[str, Any]:
    """Return the protocol's figures and whether rows, frauds and precision of fold 1 are as they must be."""
    figures = stated(served, table, range(seeds))
    first = next(iter(figures["folds"].values()))
    low, high = AP_BETWEEN
    good = [low <= precision <= high for precision in first["average_precision_by_seed"]]
    return figures | {"holds": all(good) and all(first[name] == FOLD_1[name] for name in FOLD_1)}


def compared(served: FloatArray, expected: FloatArray, control: FloatArray) -> dict[str, Any]:
    """Return by feature how many transactions differ from the twin, and from the control."""
    return {
        "compared": len(served),
        "differences": differences(served, expected),
        "control_differences": differences(served, control),
    }


def holds(report: dict[str, Any], *, moved_from: int) -> bool:
    """Tell whether nothing differs, and in the control every feature from `moved_from` on does."""
    moved = list(report["control_differences"].values())[moved_from:]
    return not any(report["differences"].values()) and all(moved)


def log_facts(settings: Settings) -> dict[str, Any]:
    """Return what the ledger counts, and how far apart in event time the partitions were applied."""
    with Log(settings) as log:
        ledger = count(log, f"{settings.environment}.scorer")
    return {
        "transactions": ledger.transactions,
        "scored": ledger.scored,
        "dead_letters": ledger.dead_letters,
        "lost": ledger.lost + ledger.waiting,
        "duplicates": ledger.duplicates,
        "balanced": ledger.balanced,
        "largest_skew_days": round(largest_skew_days(settings), 2),
    }


class _Applied(msgspec.Struct, gc=False):
    event_time_ms: int
    apply_seq: int


def largest_skew_days(settings: Settings) -> float:
    """Return by how many days of event time a transaction was applied behind one applied before it."""
    decoder = msgspec.json.Decoder(list[_Applied])
    places: list[tuple[int, int]] = []
    for batch in read_to_end(settings, topic_name(settings.environment, "scores")):
        logged = decoder.decode(as_array([message.value() or b"null" for message in batch]))
        places += [(each.apply_seq, each.event_time_ms) for each in logged]
    times = np.array(sorted(places), np.int64)[:, 1]
    return float((np.maximum.accumulate(times) - times).max() / DAY_MS)


def rows_of(source: Source) -> pa.Table:
    """Return the rows of the cut."""
    return source.table.slice(source.start, source.stop - source.start)


def a_cent_dearer(table: pa.Table) -> pa.Table:
    """Return the table with a cent more in every amount."""
    index = table.column_names.index("amount_minor")
    return table.set_column(index, table.schema.field(index), pc.add(table["amount_minor"], 1))


if __name__ == "__main__":
    main()
