"""A score has each value of its transaction, message, features and model where its name says."""

from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest

from fraudstream.clients.feature_store import Applied
from fraudstream.clients.inference import Model
from fraudstream.core.scores import Score, SetFeatures, Stages
from fraudstream.core.transaction import Entities, Transaction
from scorer.batch import Batch, Message, Part
from scorer.results import Timing, outputs_of, scores_of

FEATURES = [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5]]
TIMING = Timing(produced_at_ms=1_260, features_ms=3.0, model_ms=0.5, total_ms=7.0, deadline_ms=55)
MODEL = cast("Model", SimpleNamespace(threshold=0.3, version="7", reasons=lambda _: [["why"]]))


class Sent:
    """A message of which the scorer reads place, key and time."""

    def __init__(self, offset: int, at_ms: int) -> None:
        self._offset, self._at_ms = offset, at_ms

    def key(self) -> bytes:
        return b"key-%d" % self._offset

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at_ms


def paid(n: int) -> Transaction:
    return Transaction(1, f"tx-{n}", 10 + n, "kind", 20 + n, f"C0{n}", Entities(f"c-{n}", f"t-{n}"))


def batch() -> Batch:
    def part(partition: int, *sent: tuple[int, int, int]) -> Part:
        messages = [cast("Message", Sent(offset, at_ms)) for _, offset, at_ms in sent]
        return Part(partition, 0, 0, messages, [paid(n) for n, _, _ in sent])

    return Batch([part(4, (1, 31, 1_201)), part(6, (2, 52, 1_202), (3, 53, 1_253))], [], -1, 1_250)


def applied(first_seq: int) -> Applied:
    never = np.zeros(3, np.bool_)
    return Applied(
        np.array(FEATURES, np.float32),
        np.arange(first_seq, first_seq + 3),
        np.array([-1, 40, -1]),
        never,
        never,
        never,
    )


def expected(n: int, **more: object) -> dict[str, object]:
    """Return score `n` from 1 by the names of its fields, without what differs."""
    return {
        "v": 1,
        "transaction_id": f"tx-{n}",
        "event_time_ms": 10 + n,
        "customer": f"c-{n}",
        "terminal": f"t-{n}",
        "amount_minor": 20 + n,
        "currency": f"C0{n}",
        "threshold": 0.3,
        "model_version": "7",
        "challenger_score": None,
        "feature_set": "served",
        "features": FEATURES[n - 1],
        "apply_seq": 100 + n,
        "other_sets": msgspec.UNSET,
        **more,
    }


def test_each_value_stands_under_its_own_name() -> None:
    chances = np.array([0.25, 0.5, 0.125], np.float32)
    scores = scores_of(
        batch(), {"served": applied(101)}, chances, model=MODEL, feature_set="served", timing=TIMING
    )
    assert [msgspec.structs.asdict(score) for score in scores] == [
        expected(
            1,
            source_partition=4,
            source_offset=31,
            source_timestamp_ms=1_201,
            score=0.25,
            decision="pass",
            duplicate_of=None,
            age_ms=59,
            stale=True,
            stages=Stages(49, 3.0, 0.5, 7.0),
        ),
        expected(
            2,
            source_partition=6,
            source_offset=52,
            source_timestamp_ms=1_202,
            score=0.5,
            decision="alert",
            duplicate_of=40,
            age_ms=58,
            stale=True,
            stages=Stages(48, 3.0, 0.5, 7.0),
        ),
        expected(
            3,
            source_partition=6,
            source_offset=53,
            source_timestamp_ms=1_253,
            score=0.125,
            decision="pass",
            duplicate_of=None,
            age_ms=7,
            stale=False,
            stages=Stages(0, 3.0, 0.5, 7.0),
        ),
    ]


def test_a_score_without_a_model_decides_nothing_and_says_what_every_live_set_has() -> None:
    sets = {"served": applied(101), "other": applied(201)}
    scores = scores_of(batch(), sets, None, model=None, feature_set="served", timing=TIMING)
    assert [(s.score, s.decision, s.threshold, s.model_version) for s in scores] == [
        (None, "none", None, None)
    ] * 3
    assert [score.apply_seq for score in scores] == [101, 102, 103]
    assert [score.other_sets for score in scores] == [
        {"other": SetFeatures(FEATURES[n], 201 + n)} for n in range(3)
    ]


def test_what_goes_out_is_read_back_the_same_and_alerts_have_the_key_of_their_score() -> None:
    chances = np.array([0.25, 0.5, 0.125], np.float32)
    taken = batch()
    scores = scores_of(
        taken, {"served": applied(101)}, chances, model=MODEL, feature_set="served", timing=TIMING
    )
    outputs = outputs_of(taken, scores, model=MODEL)
    assert [(o.topic, o.key) for o in outputs] == [
        ("scores", b"key-31"),
        ("scores", b"key-52"),
        ("scores", b"key-53"),
        ("alerts", b"key-52"),
    ]
    read = [msgspec.json.decode(o.value or b"", type=Score) for o in outputs[:3]]
    assert read == scores


def test_sets_that_say_nothing_of_a_record_are_an_error() -> None:
    short = msgspec.structs.replace(batch().parts[0], transactions=[paid(1)])
    with pytest.raises(ValueError, match="zip"):
        scores_of(
            Batch([short], [], -1, 0),
            {"served": applied(101)},
            None,
            model=None,
            feature_set="served",
            timing=TIMING,
        )
