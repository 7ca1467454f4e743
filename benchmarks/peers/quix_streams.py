"""The same scorer as a user of Quix Streams writes it: the library's windows, exactly once.

    python quix_streams.py --bootstrap HOST:PORT --group g --source transactions --scores scores \
        --alerts alerts --model model.onnx --threshold 0.5 --state folder [--by-hand yes]

Sliding windows of 1, 7 and 14 days of the customer, with the library's aggregations, one after the other, as
its documents show them. State is RocksDB with a changelog topic; offsets, outputs and changelog are committed
in one Kafka transaction every second. With `--by-hand yes` one function on the library's state takes the
place of the windows: it keeps the last 14 days of a customer in a list.

Both do less than the product: no labels or profiles, and nothing of the terminal, since that would need a
second keyed stream through a repartition topic; their state begins empty.
"""

import argparse
from typing import Any

import numpy as np
import onnxruntime as ort
from quixstreams import Application, State
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.dataframe.windows import Count, Latest, Sum

DAY_MS = 86_400_000
WINDOWS = (DAY_MS, 7 * DAY_MS, 14 * DAY_MS)
FEATURES = (
    "amount",
    *(f"customer_{what}_{days}d" for days in (1, 7, 14) for what in ("count", "sum")),
)
WIDTH = 9
"""Columns of the model; those of the terminal stay 0."""


def with_library_windows(stream: StreamingDataFrame) -> StreamingDataFrame:
    """Add counts and sums by the library's sliding windows, which are inclusive on both sides."""
    stream = stream.apply(lambda paid: paid | {"row": [paid["amount_minor"] / 100]})
    stream = stream.apply(lambda paid: paid | {"amount": paid["row"][0]})
    for length in WINDOWS:
        window = stream.sliding_window(length - 1).agg(n=Count(), sum=Sum("amount"), paid=Latest())
        stream = window.current().apply(with_window)
        # A result has the time of its window's beginning; the next window needs the transaction's.
        stream = stream.set_timestamp(lambda paid, *_: paid["event_time_ms"])
    return stream


def with_window(result: dict[str, Any]) -> dict[str, Any]:
    """Return the transaction of a window's result with count and sum added to its row."""
    paid: dict[str, Any] = result["paid"]
    return paid | {"row": [*paid["row"], result["n"], result["sum"]]}


def with_windows_by_hand(paid: dict[str, Any], state: State) -> dict[str, Any]:
    """Add the transaction to its customer's last 14 days; return it with amount, counts and sums."""
    now, amount = paid["event_time_ms"], paid["amount_minor"] / 100
    entries = [each for each in state.get("entries", []) if each[0] > now - WINDOWS[-1]]
    entries.append((now, amount))
    state.set("entries", entries)
    row = [amount]
    for length in WINDOWS:
        amounts = [each for at, each in entries if now - length < at <= now]
        row += (len(amounts), sum(amounts))
    return paid | {"row": row}


class Scorer:
    """The model, one row at a time."""

    def __init__(self, path: str, threshold: float) -> None:
        threads = ort.SessionOptions()
        threads.intra_op_num_threads = threads.inter_op_num_threads = 1
        self._model = ort.InferenceSession(path, threads, providers=["CPUExecutionProvider"])
        self._threshold = threshold

    def score(self, paid: dict[str, Any]) -> dict[str, Any]:
        """Return the score record of a transaction with its row."""
        features = np.zeros((1, WIDTH), np.float32)
        features[0, : len(FEATURES)] = paid["row"]
        (output,) = self._model.run(["probabilities"], {"features": features})
        probability = float(output[0, 1])
        return {
            "transaction_id": paid["transaction_id"],
            "event_time_ms": paid["event_time_ms"],
            **paid["entities"],
            "amount_minor": paid["amount_minor"],
            "currency": paid["currency"],
            "score": probability,
            "decision": "alert" if probability > self._threshold else "pass",
            "threshold": self._threshold,
            "features": dict(zip(FEATURES, paid["row"], strict=True)),
        }


def event_time(paid: dict[str, Any], *_: object) -> int:
    """Return the time of a transaction, by which the windows go."""
    return int(paid["event_time_ms"])


def make_app(options: argparse.Namespace) -> Application:
    """Return the application with its pipeline from transactions to scores and alerts."""
    app = Application(
        broker_address=options.bootstrap,
        consumer_group=options.group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        producer_extra_config={"linger.ms": 20},
        state_dir=options.state,
        auto_create_topics=True,  # the changelog topic
        loglevel="WARNING",
    )
    scorer = Scorer(options.model, options.threshold)
    stream = app.dataframe(app.topic(options.source, timestamp_extractor=event_time))
    if options.by_hand:
        stream = stream.apply(with_windows_by_hand, stateful=True)
    else:
        stream = with_library_windows(stream)
    scored = stream.apply(scorer.score)
    scored.to_topic(app.topic(options.scores))
    scored[scored["decision"] == "alert"].to_topic(app.topic(options.alerts))
    return app


def main() -> None:
    """Score until this process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "group", "source", "scores", "alerts", "model", "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threshold", type=float, required=True)
    parser.add_argument("--by-hand", default="", help="yes: a function of one's own, not windows")
    make_app(parser.parse_args()).run()


if __name__ == "__main__":
    main()
