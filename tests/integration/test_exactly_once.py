"""The core claim: whatever moment the scorer dies at, every committed score is that of an undisturbed run."""

import random
import struct
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream.clients.clock import now_ms
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.kafka import topic_facts
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.feature_set import NINE, FeatureSet
from fraudstream.core.model import (
    CARD_METRICS,
    CHAMPION,
    Contract,
    DataWindow,
    model_name,
    usual_values,
)
from fraudstream.core.scores import Score
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import decode_feedback, decode_transaction
from fraudstream.core.twin import Twin
from producer.generator import make_parameters, source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from tests.processes import Worker, wait_until, worker
from trainer.export import Exported, convert, golden_rows, seal
from trainer.fit import fit
from trainer.publish import publish
from verify.ledger import Log, count

KILLS = 20
SEED = 20


def fill(settings: Settings) -> int:
    """Send the stream of the test; return the number of its transactions."""
    parameters = make_parameters({"seed": 5, "customers": 1_000, "terminals": 700, "days": 34})
    plan = ReplayPlan(pace=Unpaced(), client="confluent")
    return replay_table(settings, source(parameters), plan).sent


def features_by_twin(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return what the oracle makes of the topics: float32 [N, 9] by offset, and bool [N] later a fraud.

    Labels go in as the header after_feedback says, no earlier and no later.
    """
    with Log(settings) as log:
        answers = [decode_feedback(record.value) for record in log.records("feedback")]
        transactions = list(log.records("transactions"))
    fraudulent = {answer.transaction_id for answer in answers if answer.label == "fraud"}
    twin, told, rows, frauds = Twin(), 0, [], []
    for record in transactions:
        needed = int(dict(record.headers).get("after_feedback") or b"-1")
        for answer in answers[told : needed + 1]:
            twin.label(answer)
        told = max(told, needed + 1)
        transaction = decode_transaction(record.value)
        rows.append(twin.apply(record.partition, record.offset, transaction).features)
        frauds.append(transaction.transaction_id in fraudulent)
    assert told > 100, "the stream must carry labels"
    return np.array(rows, dtype=np.float32), np.array(frauds)


def trained(features: np.ndarray, frauds: np.ndarray, feature_set: FeatureSet = NINE) -> Exported:
    fitted = fit(features, frauds, seed=1)
    usual, spread = usual_values(features[~frauds])
    scores = fitted.probabilities(features).astype(np.float32)
    contract = Contract(
        feature_set=feature_set.hash,
        features=feature_set.features,
        threshold=0.5,
        golden_inputs=golden_rows(features, scores).tolist(),
        golden_outputs=[],
        usual=usual.tolist(),
        spread=spread.tolist(),
        window=DataWindow(**dict.fromkeys(DataWindow.__struct_fields__, 0)),
        metrics=dict.fromkeys(CARD_METRICS, 0.0),
        created_at_ms=now_ms(),
    )
    return seal(convert(fitted), contract)


def make_champion(settings: Settings, exported: Exported) -> None:
    version = publish(settings, exported, {})
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=5_000)
    registry.set_alias(model_name(settings.environment), CHAMPION, version)


def committed(log: Log, settings: Settings) -> bool:
    done, total = log.lag(f"{settings.environment}.scorer")
    return done == total


def score_all(settings: Settings, log_file: Path) -> None:
    with Log(settings) as log, worker(settings, log_file) as running:
        wait_until(lambda: committed(log, settings), timeout_s=120, what="all scored")
        assert running.stop() == 0, running.said()


def score_under_fire(settings: Settings, total: int, log_file: Path) -> int:
    """Score everything while the worker is killed KILLS times.

    Return how often a kill left a batch applied to the features but not committed.
    """
    store = FeatureStore.connect(
        settings.redis_url,
        settings.environment,
        NINE,
        connect_timeout_ms=5_000,
        request_timeout_ms=5_000,
    )
    name = topic_name(settings.environment, "transactions")
    topic_id = topic_facts(settings, [name])[name].topic_id
    dice = random.Random(SEED)
    torn = 0
    for kill in range(KILLS):
        target = total * (kill + 1) // (KILLS + 2) + dice.randrange(500)
        running = Worker(settings, log_file)

        def reached(target: int = target, running: Worker = running) -> bool:
            assert running.process.poll() is None, running.said()
            return store.marks(topic_id, [0])[0] >= target

        wait_until(reached, timeout_s=60, what=f"mark {target} before kill {kill}")
        time.sleep(dice.random() * 0.02)  # anywhere in a batch, not just after the features
        running.kill()
        applied = store.marks(topic_id, [0])[0]
        with Log(settings) as log:
            done = sum(log.committed(f"{settings.environment}.scorer").values())
        torn += applied >= done
    store.close()
    score_all(settings, log_file)
    return torn


def scores_by_offset(settings: Settings) -> dict[int, Score]:
    decoder = msgspec.json.Decoder(Score)
    with Log(settings) as log:
        scores = [decoder.decode(record.value or b"") for record in log.records("scores")]
    by_offset = {score.source_offset: score for score in scores}
    assert len(by_offset) == len(scores), "a position has two scores"
    return by_offset


def substance(score: Score, first: Score) -> tuple[object, ...]:
    """Return what must be equal in any run, numbers as their bits; places count from that of the `first`."""
    assert score.score is not None
    numbers = struct.pack("<10d", score.score, *score.features)
    place = score.apply_seq - first.apply_seq
    return (score.transaction_id, numbers, score.decision, score.duplicate_of, place)


@pytest.mark.proof
@pytest.mark.parametrize("partitions", [1])
def test_scores_after_twenty_kills_equal_those_of_an_undisturbed_run_bit_for_bit(
    topics: Settings, tmp_path: Path
) -> None:
    calm = topics
    fire = msgspec.structs.replace(
        calm,
        environment=calm.environment + "-fire",
        state_dir=str(tmp_path / "fire"),
        batch_max_records=100,
    )
    create_topics(fire.kafka_bootstrap, fire.environment, 1, timeout_ms=10_000)
    total = fill(calm)
    assert total >= 50_000
    assert fill(fire) == total
    expected, frauds = features_by_twin(calm)
    exported = trained(expected, frauds)
    make_champion(calm, exported)
    make_champion(fire, exported)

    score_all(calm, tmp_path / "calm.log")
    torn = score_under_fire(fire, total, tmp_path / "fire.log")

    assert torn > 0, "no kill hit between features and commit: the test proves nothing"
    undisturbed, disturbed = scores_by_offset(calm), scores_by_offset(fire)
    assert len(undisturbed) == total
    different = [
        offset
        for offset in undisturbed
        if offset not in disturbed
        or substance(undisturbed[offset], undisturbed[0])
        != substance(disturbed[offset], disturbed[0])
    ]
    assert not different, f"{len(different)} scores differ, first at offset {different[0]}"
    served = np.array([undisturbed[i].features for i in range(total)], dtype=np.float32)
    unequal = np.flatnonzero((served.view(np.uint32) != expected.view(np.uint32)).any(axis=1))
    assert len(unequal) == 0, f"{len(unequal)} rows differ from the twin, first {unequal[:5]}"
    for settings in (calm, fire):
        with Log(settings) as log:
            ledger = count(log, f"{settings.environment}.scorer")
        assert ledger.balanced
        assert (ledger.scored, ledger.waiting) == (total, 0)
