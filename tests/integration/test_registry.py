"""Publish, look up, fetch and promote against a real MLflow, and a Kafka that orders two promotions."""

import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
import urllib3

from fraudstream.clients import audit_log
from fraudstream.clients.clock import now_ms
from fraudstream.clients.inference import load_model
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import CHAMPION, PREVIOUS, ModelVersion, model_name
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings, make_settings
from fraudstream.stack import embedded
from tests.model_samples import sample
from trainer.promote import INTENT_EXPIRES_MS, Order, Promotion, promote
from trainer.publish import version_tags

# MLflow's library warns at its import and changes the process, so it publishes in a process of its own.
PUBLISH = """
import sys, msgspec
from fraudstream.core.settings import make_settings
from tests.model_samples import sample
from trainer.publish import publish
settings = make_settings(msgspec.json.decode(sys.argv[1]))
print(publish(settings, sample().exported, {"seed": "0"}))
"""


@pytest.fixture(scope="module")
def published(stack: embedded.Addresses) -> Settings:
    """The settings of an environment in which the sample was published once."""
    settings = make_settings(
        {"environment": f"published-{uuid.uuid4().hex[:8]}", "mlflow_url": stack.mlflow_url}
    )
    text = msgspec.json.encode(settings).decode()
    command = [sys.executable, "-c", PUBLISH, text]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1"]
    return settings


def publish(published: Settings, settings: Settings, times: int = 1) -> None:
    """Register the published sample in the environment of `settings`, as versions 1 to `times`."""
    api = f"{published.mlflow_url}/api/2.0/mlflow"
    name = model_name(published.environment)
    fields = {"name": name, "version": "1"}
    answer = urllib3.request("GET", f"{api}/model-versions/get", fields=fields).json()
    known = answer["model_version"]
    body = {key: known[key] for key in ("source", "run_id", "tags", "description")}
    body |= {
        "name": model_name(settings.environment),
        "model_id": known["source"].partition("/")[2],
    }
    made = urllib3.request("POST", f"{api}/registered-models/create", json={"name": body["name"]})
    assert made.status == 200, made.data
    for _ in range(times):
        made = urllib3.request("POST", f"{api}/model-versions/create", json=body)
        assert made.status == 200, made.data


def connect(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings.mlflow_url, connect_timeout_ms=5_000)


def order(version: str, *, actor: str = "ann", at_ms: int | None = None) -> Order:
    return Order(version=version, actor=actor, why="test", now_ms=at_ms or now_ms())


def champion(settings: Settings) -> str | None:
    found = connect(settings).alias(model_name(settings.environment), CHAMPION)
    return found.version if found else None


def test_a_model_that_does_not_exist_has_no_champion_and_no_versions(settings: Settings) -> None:
    registry = connect(settings)

    assert registry.alias("nobodys-fraud", CHAMPION) is None
    assert registry.version("nobodys-fraud", "1") is None
    assert registry.versions("nobodys-fraud") == []


def test_what_is_published_is_what_is_fetched(settings: Settings, published: Settings) -> None:
    registry, name = connect(settings), model_name(settings.environment)
    publish(published, settings, times=2)
    assert registry.alias(name, CHAMPION) is None
    registry.set_alias(name, CHAMPION, "1")

    found = registry.alias(name, CHAMPION)

    assert found is not None
    exported = sample().exported
    assert registry.fetch(found) == exported.onnx_bytes
    assert (found.sha256, found.feature_set) == (exported.sha256, NINE.hash)
    assert found.threshold == exported.contract.threshold
    assert found.average_precision == exported.contract.metrics["average_precision"]
    assert found.description.startswith("# Card fraud score")
    assert [each.version for each in registry.versions(name)] == ["2", "1"]
    assert [each.aliases for each in registry.versions(name)] == [(), (CHAMPION,)]
    assert set(version_tags(exported)) == {
        "sha256",
        "feature_set",
        "threshold",
        "average_precision",
        "data_window",
    }


def test_a_threshold_tag_replaces_the_contracts_threshold(
    settings: Settings, published: Settings
) -> None:
    registry, name = connect(settings), model_name(settings.environment)
    publish(published, settings)
    registry.set_tag(name, "1", key="threshold", value="0.125")

    found = registry.version(name, "1")

    assert found is not None
    model = load_model(
        registry.fetch(found),
        version="1",
        sha256=found.sha256,
        feature_set=NINE,
        threshold=found.threshold,
    )
    assert model.threshold == 0.125


def test_a_file_that_is_not_the_one_of_the_tag_is_not_used(
    settings: Settings, published: Settings
) -> None:
    registry, name = connect(settings), model_name(settings.environment)
    publish(published, settings)
    found = registry.version(name, "1")
    assert found is not None

    with pytest.raises(Refused, match=f"version 1 of {name} is not used: digest"):
        registry.fetch(msgspec.structs.replace(found, sha256="0" * 64))
    with pytest.raises(Refused, match="was not published by fraudstream"):
        registry.fetch(msgspec.structs.replace(found, sha256=""))


def test_a_registry_that_does_not_answer_is_named() -> None:
    registry = ModelRegistry("http://127.0.0.1:1", connect_timeout_ms=1_000)

    with pytest.raises(
        DependencyUnreachable, match=r"MLflow at http://127.0.0.1:1 does not answer"
    ):
        registry.alias("local-fraud", CHAMPION)


def test_a_registry_whose_database_is_away_is_a_server_that_is_away() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _DatabaseAway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = ModelRegistry(f"http://127.0.0.1:{server.server_port}", connect_timeout_ms=1_000)
        with pytest.raises(
            DependencyUnreachable, match=r"503: connection failed; is its database away"
        ):
            registry.versions("a-fraud")
        server.shutdown()


class _DatabaseAway(BaseHTTPRequestHandler):
    """Answers as MLflow does while PostgreSQL starts."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        error = b'"error_code": "TEMPORARILY_UNAVAILABLE"'
        self.wfile.write(b'{%s, "message": "connection failed\\n(Background)"}' % error)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
        """Say nothing."""


def test_an_address_that_is_not_mlflow_is_said(settings: Settings) -> None:
    registry = ModelRegistry(settings.mlflow_url + "/nowhere", connect_timeout_ms=1_000)

    with pytest.raises(FraudstreamError, match="is the address right"):
        registry.alias("local-fraud", CHAMPION)


def test_promotion_moves_champion_keeps_previous_and_is_audited(
    topics: Settings, published: Settings
) -> None:
    registry, name = connect(topics), model_name(topics.environment)
    publish(published, topics, times=2)

    first = promote(topics, registry, order("1"), feature_set=NINE)
    second = promote(topics, registry, order("2"), feature_set=NINE)
    again = promote(topics, registry, order("2"), feature_set=NINE)

    assert first == Promotion("1", None, moved=True)
    assert second == Promotion("2", "1", moved=True)
    assert again == Promotion("2", None, moved=False)
    assert champion(topics) == "2"
    former = registry.alias(name, PREVIOUS)
    assert former is not None
    assert former.version == "1"
    events = [event for _, event in audit_log.read_events(topics, name)]
    assert [(event.model_version, event.evidence["phase"]) for event in events] == [
        ("1", "intent"),
        ("1", "done"),
        ("2", "intent"),
        ("2", "done"),
    ]
    assert events[2].evidence["expected_champion"] == "1"
    assert {(event.actor, event.why) for event in events} == {("ann", "test")}


def test_versions_that_fail_a_check_are_not_promoted(topics: Settings, published: Settings) -> None:
    registry, name = connect(topics), model_name(topics.environment)
    publish(published, topics)

    with pytest.raises(FraudstreamError, match=f"version 9 of {name} does not exist"):
        promote(topics, registry, order("9"), feature_set=NINE)
    with pytest.raises(Refused, match="feature set"):
        promote(
            topics, registry, order("1"), feature_set=msgspec.structs.replace(NINE, hot_ratio=4.0)
        )
    registry.set_tag(name, "1", key="sha256", value="0" * 64)
    with pytest.raises(Refused, match="digest"):
        promote(topics, registry, order("1"), feature_set=NINE)

    assert champion(topics) is None
    assert audit_log.read_events(topics, name) == []


def intent(settings: Settings, *, at_ms: int) -> int:
    event = AuditEvent(
        event="promote",
        model_name=model_name(settings.environment),
        model_version="1",
        at_ms=at_ms,
        actor="bob",
        why="test",
        evidence={"phase": "intent", "expected_champion": None, "intent_offset": None},
    )
    return audit_log.append(settings, event)


def test_a_promotion_under_way_refuses_another(topics: Settings, published: Settings) -> None:
    publish(published, topics, times=2)
    at_ms = now_ms()
    intent(topics, at_ms=at_ms)

    with pytest.raises(Refused, match="bob is promoting version 1"):
        promote(topics, connect(topics), order("2", at_ms=at_ms + 1), feature_set=NINE)

    assert champion(topics) is None


def test_a_promotion_that_was_killed_is_ignored_after_a_minute(
    topics: Settings, published: Settings
) -> None:
    publish(published, topics, times=2)
    at_ms = now_ms()
    intent(topics, at_ms=at_ms)

    promote(topics, connect(topics), order("2", at_ms=at_ms + INTENT_EXPIRES_MS), feature_set=NINE)

    assert champion(topics) == "2"


class LateRegistry(ModelRegistry):
    """A registry in front of which a rival's intent appears while the champion is being read."""

    rival: Settings

    def alias(self, model_name: str, alias: str) -> ModelVersion | None:
        """Read the alias after the rival's intent has come in."""
        intent(self.rival, at_ms=now_ms())
        return super().alias(model_name, alias)


def test_of_two_promotions_at_once_the_second_is_refused(
    topics: Settings, published: Settings
) -> None:
    publish(published, topics, times=2)
    registry = LateRegistry(topics.mlflow_url, connect_timeout_ms=5_000)
    registry.rival = topics

    with pytest.raises(Refused, match="is being promoted by bob and came first"):
        promote(topics, registry, order("2"), feature_set=NINE)

    assert champion(topics) is None
    events = [event for _, event in audit_log.read_events(topics, model_name(topics.environment))]
    assert [(event.event, event.actor) for event in events] == [
        ("promote", "bob"),
        ("promote", "ann"),
        ("refused", "ann"),
    ]


def test_of_many_promotions_at_once_at_most_one_moves_the_champion(
    topics: Settings, published: Settings
) -> None:
    publish(published, topics, times=3)
    outcomes: list[str] = []
    barrier = threading.Barrier(3)

    def attempt(version: str) -> None:
        barrier.wait()
        try:
            promote(topics, connect(topics), order(version, actor=version), feature_set=NINE)
        except Refused:
            return
        outcomes.append(version)

    threads = [threading.Thread(target=attempt, args=(str(number),)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # One that starts after another has ended may follow it; the log then shows them one after another.
    name = model_name(topics.environment)
    phases = [
        event.evidence["phase"]
        for _, event in audit_log.read_events(topics, name)
        if event.event == "promote" and event.model_version in outcomes
    ]
    assert outcomes
    assert phases == ["intent", "done"] * len(outcomes)
    assert champion(topics) == outcomes[-1]
