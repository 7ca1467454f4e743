"""The same scorer as a user of Quix Streams writes it: a stateful function, exactly once.

    python quix_streams.py --bootstrap HOST:PORT --group g --source transactions --scores scores \
        --alerts alerts --model model.onnx --threshold 0.5 --state folder

Windows of 1, 7 and 14 days of the customer are kept in the library's state (RocksDB with a changelog topic);
offsets, outputs and changelog are committed in one Kafka transaction every second. It does less than the
product: no labels or profiles, and nothing of the terminal, since that would need a second keyed stream
through a repartition topic; its state begins empty. So it is faster here than it would be with equal work.

A function on the state is the fastest way that was found. The library's own windows (three `sliding_window`
in a row with Count, Sum and Latest) reach 2,600 transactions a second where this reaches 25,000.
"""

import argparse
from typing import Any

import numpy as np
import onnxruntime as ort
from quixstreams import Application, State

DAY_MS = 86_400_000
WINDOWS = (DAY_MS, 7 * DAY_MS, 14 * DAY_MS)
FEATURES = (
    "amount",
    *(f"customer_{what}_{days}d" for days in (1, 7, 14) for what in ("count", "sum")),
)
WIDTH = 9
"""Columns of the model; those of the terminal stay 0."""


def with_windows(paid: dict[str, Any], state: State) -> dict[str, Any]:
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
    stream = app.dataframe(app.topic(options.source))
    scored = stream.apply(with_windows, stateful=True).apply(scorer.score)
    scored.to_topic(app.topic(options.scores))
    scored[scored["decision"] == "alert"].to_topic(app.topic(options.alerts))
    return app


def main() -> None:
    """Score until this process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "group", "source", "scores", "alerts", "model", "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threshold", type=float, required=True)
    make_app(parser.parse_args()).run()


if __name__ == "__main__":
    main()
