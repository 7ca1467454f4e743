"""The oracle: what every committed score should have been, and what Redis should hold at the end.

Imports nothing of scorer/. The twin (plain Python, another implementation of the features) is fed in the
order in which the scores say that they were applied; onnxruntime scores what the twin says with the file of
the version that each score names; alerts must be those that the scores decide on; a state built anew,
everything once and in peace, is compared byte by byte.
"""

import sys
from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np
import onnxruntime as ort

from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import INPUT_NAME, OUTPUT_NAME, FloatArray, model_name
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Feedback, decode_feedback
from fraudstream.core.twin import Twin
from verify.chaos.alerts import Alerts
from verify.chaos.calm import Building, compare_state
from verify.chaos.columns import DECISIONS, NO_MODEL, Scores
from verify.chaos.sent import Transactions
from verify.ledger import Ledger, Log, balance
from verify.tally import Arrivals, Results

NAMED = 5
OTHERS = "are not those of its transaction"
ROWS = 20_000

Tell = Callable[[str], None]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What differs, in records; `differences` names the first ones.

    `score_differences`: scores whose features, probability, threshold, decision or `duplicate_of` are not
    those of the oracle, whose id, times, customer, terminal, amount, currency or key are not those of the
    transaction, or whose place of application was given out twice. `alert_differences`: alerts that are
    missing, too much, or not what their score says. `state_differences`: keys of Redis. `sent_per_s`:
    transactions by the time from the first one's timestamp to the last one's.
    """

    ledger: Ledger
    sent_per_s: float
    scores_compared: int
    scores_by_version: dict[str, int]
    score_differences: int
    alerts_compared: int
    alert_differences: int
    entities_compared: int
    state_differences: int
    differences: list[str]


class Read(msgspec.Struct, frozen=True):
    """All that the topics hold."""

    sent: Transactions
    answers: list[Feedback]
    scores: Scores
    alerts: Alerts
    ledger: Ledger
    sent_per_s: float


class Sent:
    """How fast transactions came, by their own timestamps in Unix ms, in whatever order they are read."""

    def __init__(self) -> None:
        self._count = 0
        self._first_ms, self._last_ms = sys.maxsize, 0

    def add(self, timestamp_ms: int) -> None:
        """Count one."""
        self._count += 1
        self._first_ms = min(self._first_ms, timestamp_ms)
        self._last_ms = max(self._last_ms, timestamp_ms)

    @property
    def per_s(self) -> float:
        """Return transactions a second from the first to the last; 0 if all came at once, or none."""
        took_ms = self._last_ms - self._first_ms
        return self._count / took_ms * 1000 if took_ms > 0 else 0.0


def judge(settings: Settings, tell: Tell) -> Verdict:
    """Read everything that was committed and compare it with what it should be.

    Raises:
        FraudstreamError: a topic cannot be read, or a score names a version that the registry has not.
    """
    with Building(settings) as calm:
        with Log(settings) as log:
            read = read_all(settings, log, tell)
        tell(f"recomputing {len(read.scores):,} scores")
        wrong, features = compare_features(read)
        wrong = compare_probabilities(read.scores, features, partial(score, settings)) | wrong
        tell("comparing the state with one built in peace")
        calm.wait()
    entities, changed = compare_state(settings)
    names = read.scores.names
    counts = np.bincount(read.scores.versions, minlength=len(names)).tolist()
    alerts = read.alerts.differences()
    return Verdict(
        ledger=read.ledger,
        sent_per_s=read.sent_per_s,
        scores_compared=len(read.scores),
        scores_by_version=dict(zip(names, counts, strict=True)),
        score_differences=len(wrong) + read.scores.unreadable,
        alerts_compared=read.alerts.read,
        alert_differences=len(alerts),
        entities_compared=entities,
        state_differences=len(changed),
        differences=[*list(wrong.values())[:NAMED], *alerts[:NAMED], *changed[:NAMED]],
    )


def read_all(settings: Settings, log: Log, tell: Tell) -> Read:
    """Read every topic once, with the independent client of the ledger."""
    committed = log.committed(f"{settings.environment}.scorer")
    scores, alerts = Scores(len(NINE.features), NINE.hash), Alerts()
    results, came_in = Results(), Arrivals()
    tell("reading scores and alerts")
    for record in log.records("scores"):
        results.add_score(record)
        scores.add(record.value, record.key)
        alerts.ask(record)
    for record in log.records("alerts"):
        alerts.add(record)
    for record in log.records("dead-letters"):
        results.add_dead_letter(record)
    tell("reading the transactions")
    transactions, sent = Transactions(), Sent()
    for record in log.records("transactions"):
        came_in.add_record(record)
        sent.add(record.timestamp)
        transactions.add(record)
    answers = [decode_feedback(record.value) for record in log.records("feedback")]
    ledger = balance(came_in, results, committed)
    return Read(transactions, answers, scores, alerts, ledger, sent.per_s)


def compare_features(read: Read) -> tuple[dict[int, str], FloatArray]:
    """Replay the scores through the twin; return what differs by place, and its features float32 [N, F].

    Labels go in first: each says itself from when on it counts.
    """
    scores, twin = read.scores, Twin()
    for answer in read.answers:
        twin.label(answer)
    wrong: dict[int, str] = {}
    features = np.empty((len(scores), len(NINE.features)), np.float32)
    last_seq = -1
    seqs = scores.seqs
    for i in scores.in_order().tolist():
        place = partition, offset = scores.place(i)
        found = read.sent.find(partition, offset)
        if found is None:
            wrong[i] = f"a score of {place}, which is no transaction"
            continue
        transaction, said = found
        reply = twin.apply(partition, offset, transaction)
        features[i] = reply.features
        if seqs[i] == last_seq:
            wrong[i] = f"{place}: place of application {last_seq} was given out twice"
        last_seq = seqs[i]
        if scores.said(i) != said:
            wrong[i] = f"{place}: id, times, customer, terminal, amount, currency or key {OTHERS}"
        served = (scores.row(i), scores.duplicate_of(i))
        if served != (reply.features, reply.duplicate_of):
            expected = (reply.features, reply.duplicate_of)
            wrong[i] = f"{place}: features {served}, the oracle has {expected}"
    return wrong, features


def compare_probabilities(
    scores: Scores,
    features: FloatArray,
    score_by: Callable[[str, FloatArray], tuple[FloatArray, float]],
) -> dict[int, str]:
    """Return by place which scores are not those of the oracle's `features` float32 [N, F].

    `score_by` returns what a version makes of features, and its threshold.
    """
    wrong: dict[int, str] = {}
    for number, version in enumerate(scores.names):
        places = np.flatnonzero(scores.versions == number)
        if version == NO_MODEL:
            unknown = np.isnan(scores.scores[places]) & np.isnan(scores.thresholds[places])
            different = places[~unknown | (scores.decisions[places] != 0)]
        else:
            expected, threshold = score_by(version, features[places])
            decided = np.where(expected >= threshold, DECISIONS["alert"], DECISIONS["pass"])
            same = expected.view(np.uint32) == scores.scores[places].view(np.uint32)
            same &= scores.thresholds[places] == threshold
            different = places[~(same & (decided == scores.decisions[places]))]
        for i in different.tolist():
            wrong[i] = f"{scores.place(i)}: score {scores.scores[i]!r} is not that of {version!r}"
    return wrong


def score(settings: Settings, version: str, features: FloatArray) -> tuple[FloatArray, float]:
    """Return probabilities float32 [N] by a registered version, and its threshold.

    Raises:
        FraudstreamError: the registry has no such version.
    """
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    found = registry.version(model_name(settings.environment), version)
    if found is None or found.threshold is None:
        raise FraudstreamError(f"a score names version {version}, which the registry does not have")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # see docs/models.md
    session = ort.InferenceSession(
        registry.fetch(found), options, providers=["CPUExecutionProvider"]
    )
    parts = [np.empty(0, np.float32)]
    for begin in range(0, len(features), ROWS):
        fed = {INPUT_NAME: features[begin : begin + ROWS]}
        parts.append(session.run([OUTPUT_NAME], fed)[0][:, 1])
    return np.concatenate(parts), found.threshold
