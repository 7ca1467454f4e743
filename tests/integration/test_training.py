"""`fraudstream train` on real servers: from committed scores and labels to a champion that loads."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream.clients import audit_log
from fraudstream.clients.inference import load_model
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.score_log import FEW, read_feedback, read_scores
from fraudstream.clients.set_log import SetLog
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import DAY_MS, NINE, FeatureSet, packaged
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.scores import SetFeatures
from fraudstream.core.settings import Settings
from tests.integration.served_scores import (
    SPAN_MS,
    T0,
    fraud_label,
    made_score,
    send,
    serve,
    transactional,
)
from tests.model_samples import rows
from trainer.build import MIN_FRAUDS, build, labels_in_force, newest
from trainer.options import TrainingOptions
from trainer.pipeline import TrainingReport, collect

COUNT = 12_000
OPTIONS = TrainingOptions(feature_set=NINE, actor="ann")


def fraudstream(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the settings of the test."""
    values = msgspec.structs.asdict(settings)
    variables = {f"FRAUDSTREAM_{name.upper()}": str(value) for name, value in values.items()}
    return subprocess.run(
        [sys.executable, "-m", "fraudstream.cli", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_training_ends_with_a_champion_that_a_scorer_can_load(
    topics: Settings, tmp_path: Path
) -> None:
    serve(topics, COUNT)
    report_file = tmp_path / "report.json"

    done = fraudstream(topics, "train", "--promote", "--json", str(report_file))

    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(report_file.read_bytes(), type=TrainingReport)
    assert (report.scores_read, report.promoted, report.model_version) == (COUNT, True, "1")
    # Half of the 14 days is older than the label delay.
    window = report.window
    assert window.fit_rows + window.validation_rows == pytest.approx(COUNT / 2, abs=1)
    assert window.to_ms <= window.as_of_ms - NINE.label_delay_ms
    assert report.metrics["average_precision"] > 20 * report.metrics["chance"]
    assert report.metrics["alerts_per_1000"] <= topics.alerts_per_1000
    name = model_name(topics.environment)
    registry = ModelRegistry(topics.mlflow_url, connect_timeout_ms=5_000)
    champion = registry.alias(name, CHAMPION)
    assert champion is not None
    model = load_model(
        registry.fetch(champion), version="1", sha256=report.sha256, feature_set=NINE
    )
    log = read_scores(topics, NINE)
    young = log.features[log.event_time_ms > window.as_of_ms - NINE.label_delay_ms]
    alerted = float((model.score(young) >= model.threshold).mean() * 1000)
    assert 0.8 * topics.alerts_per_1000 <= alerted <= topics.alerts_per_1000, "of newest traffic"
    events = [event.event for _, event in audit_log.read_events(topics, name)]
    assert events == ["publish", "gate", "promote", "promote"]
    listed = fraudstream(topics, "models", "list").stdout
    assert "1  champion" in listed
    assert "# Card fraud score" in fraudstream(topics, "models", "show", "champion").stdout
    assert "champion already" in fraudstream(topics, "models", "promote", "1").stdout


def test_a_version_that_is_worse_than_the_champion_is_published_but_not_promoted(
    topics: Settings, tmp_path: Path
) -> None:
    serve(topics, COUNT)
    assert fraudstream(topics, "train", "--promote").returncode == 0
    forget(topics)
    report_file = tmp_path / "report.json"

    done = fraudstream(topics, "train", "--promote", "--json", str(report_file))

    assert done.returncode == 3, done.stdout
    assert "version 2 is published but not promoted: it is worse than version 1" in done.stderr
    assert "`fraudstream models promote 2 --why" in done.stderr
    report = msgspec.json.decode(report_file.read_bytes(), type=TrainingReport)
    assert (report.promoted, report.gate.passed, report.gate.champion) == (False, False, "1")
    assert "which favours it" in report.gate.why, "the champion knows these transactions"
    name = model_name(topics.environment)
    _, last = audit_log.read_events(topics, name)[-1]
    assert (last.event, last.model_version, last.evidence["passed"]) == ("gate", "2", False)
    champion = ModelRegistry(topics.mlflow_url, connect_timeout_ms=5_000).alias(name, CHAMPION)
    assert champion is not None
    assert champion.version == "1"
    assert fraudstream(topics, "models", "promote", "2", "--why", "a test").returncode == 0


def forget(settings: Settings) -> None:
    """Take back the labels of the first days, so that what is learned next is next to nothing."""
    fitted_until_ms = T0 + SPAN_MS // 2 * 8 // 10
    known = [a for a in read_feedback(settings) if a.event_time_ms < fitted_until_ms]
    corrections = [
        msgspec.structs.replace(each, label="genuine", labelled_at_ms=each.labelled_at_ms + 1)
        for each in known[MIN_FRAUDS:]
    ]
    producer = transactional(settings)
    producer.begin_transaction()
    send(producer, settings, [], corrections)
    producer.commit_transaction()


def test_scores_of_aborted_transactions_are_not_learned_from(topics: Settings) -> None:
    serve(topics, 500)

    log = read_scores(topics, NINE)

    assert sorted(map(int, log.ids())) == list(range(500))


def test_features_are_read_as_they_were_served(topics: Settings) -> None:
    serve(topics, 500, seed=3)

    log = read_scores(topics, NINE)

    served, _ = rows(500, seed=3)
    for number, features in zip(log.ids(), log.features, strict=True):
        assert features.tobytes() == served[int(number)].tobytes()


def test_a_live_set_that_did_not_serve_is_trained_on_and_promoted(
    topics: Settings, tmp_path: Path
) -> None:
    windows = packaged()["windows"]
    refused = fraudstream(topics, "train", "--feature-set", "windows")
    assert f"no scores of feature set {windows.hash}" in refused.stderr
    serve_beside(topics, windows)
    log = SetLog(topics)
    log.begin("test")
    report_file = tmp_path / "report.json"
    arguments = ("train", "--feature-set", "windows", "--promote", "--json", str(report_file))
    early = fraudstream(topics, *arguments)
    assert early.returncode == 3
    assert "`fraudstream features fill windows`" in early.stderr
    log.append("live", windows, actor="test", why="test")

    done = fraudstream(topics, *arguments)

    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(report_file.read_bytes(), type=TrainingReport)
    assert (report.feature_set, report.promoted) == (windows.hash, True)
    assert report.scores_read == COUNT
    assert report.metrics["average_precision"] > 20 * report.metrics["chance"]
    listed = fraudstream(topics, "models", "show", "champion")
    assert f"feature set {windows.hash}" in listed.stdout


def serve_beside(settings: Settings, feature_set: FeatureSet) -> None:
    """Commit scores of the nine that carry the features of another set, too, and their labels."""
    features, labels = rows(COUNT, seed=7)
    scores = [
        made_score(
            index,
            event_time_ms=T0 + index * SPAN_MS // COUNT,
            features=[0.0] * 9,
            other_sets={feature_set.hash: SetFeatures(row[: len(feature_set.features)], index)},
        )
        for index, row in enumerate(features.tolist())
    ]
    frauds = [score for score, fraud in zip(scores, labels.tolist(), strict=True) if fraud]
    producer = transactional(settings)
    producer.begin_transaction()
    send(producer, settings, scores, [fraud_label(score) for score in frauds])
    producer.commit_transaction()


def test_duplicates_and_other_feature_sets_are_left_out_and_counted(topics: Settings) -> None:
    producer = transactional(topics)
    producer.begin_transaction()
    scores = [
        made_score(1, event_time_ms=T0, features=[1.0] * 9),
        made_score(1, event_time_ms=T0, features=[1.0] * 9, duplicate_of=1),
        made_score(2, event_time_ms=T0, features=[1.0, 2.0], feature_set="another"),
    ]
    send(producer, topics, scores, [])
    producer.commit_transaction()

    log = read_scores(topics, NINE)

    assert log.ids() == ["1"]
    assert (log.duplicates, log.other_feature_set) == (1, 1)


def test_a_transaction_still_open_ends_the_reading_instead_of_blocking_it(topics: Settings) -> None:
    producer = transactional(topics)
    producer.begin_transaction()
    send(producer, topics, [made_score(1, event_time_ms=T0, features=[1.0] * 9)], [])
    producer.commit_transaction()
    producer.begin_transaction()
    send(producer, topics, [made_score(2, event_time_ms=T0, features=[1.0] * 9)], [])
    producer.flush()

    log = read_scores(topics, NINE)

    producer.abort_transaction()
    assert log.ids() == ["1"]


def test_labels_known_later_than_as_of_teach_nothing(topics: Settings) -> None:
    """As of day 10 only the frauds of the first 3 days are known; as of the end those of 7 days."""
    serve(topics, 4_000)
    frauds = len(list(read_feedback(topics)))
    early_ms, end_ms = T0 + 10 * DAY_MS, T0 + SPAN_MS + 7 * DAY_MS

    early = collect(topics, msgspec.structs.replace(OPTIONS, as_of_ms=early_ms)).mature
    whole = collect(topics, msgspec.structs.replace(OPTIONS, as_of_ms=end_ms)).mature

    assert early.event_time_ms.max() <= early_ms - 7 * DAY_MS
    assert len(early.labels) == pytest.approx(4_000 * 3 / 14, abs=1)
    assert 0 < early.labels.sum() < whole.labels.sum()
    assert (len(whole.labels), whole.labels.sum()) == (4_000, frauds)


def test_of_a_log_longer_than_the_window_training_sees_the_same_rows_in_less_memory(
    topics: Settings,
) -> None:
    serve(topics, 4_000)
    whole = read_scores(topics, NINE)
    as_of_ms = whole.newest_ms
    assert as_of_ms == whole.event_time_ms.max()
    frauds = labels_in_force(read_feedback(topics), as_of_ms)
    delay_ms = NINE.label_delay_ms
    wanted = build(whole, frauds, as_of_ms=as_of_ms, label_delay_ms=delay_ms, days=2)

    found = collect(topics, msgspec.structs.replace(OPTIONS, days=2))

    assert (found.log.read, found.as_of_ms) == (4_000, as_of_ms)
    assert 0 <= len(found.log.event_time_ms) - 4_000 * (2 + 7) // 14 <= FEW
    assert wanted.labels.sum() > 0
    for name in ("features", "labels", "event_time_ms", "customers"):
        assert np.array_equal(getattr(found.mature, name), getattr(wanted, name)), name
    assert np.array_equal(found.newest, newest(whole, as_of_ms=as_of_ms, label_delay_ms=delay_ms))


def test_without_frauds_training_ends_with_their_number_and_what_to_do(topics: Settings) -> None:
    serve(topics, 500, fraud_labels=False)

    done = fraudstream(topics, "train")

    assert done.returncode == 1
    assert "0 known frauds in 200 transactions to fit" in done.stderr
    assert "replay more history" in done.stderr


def test_without_scores_training_says_what_to_run(topics: Settings) -> None:
    with pytest.raises(FraudstreamError, match=r"no scores of feature set .* `fraudstream scorer`"):
        collect(topics, OPTIONS)


def test_without_topics_training_says_how_to_make_them(settings: Settings) -> None:
    with pytest.raises(Refused, match=r"make it with `fraudstream topics create`$"):
        collect(settings, OPTIONS)


def test_an_mlflow_that_does_not_answer_is_said_before_the_work(topics: Settings) -> None:
    done = fraudstream(msgspec.structs.replace(topics, mlflow_url="http://127.0.0.1:1"), "train")

    assert done.returncode == 1
    assert "MLflow at http://127.0.0.1:1 does not answer" in done.stderr
    assert "collecting" not in done.stderr
