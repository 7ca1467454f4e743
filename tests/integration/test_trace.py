"""`fraudstream trace` on real servers: what was sent, scored, refused, answered, and what still waits."""

import shlex
import subprocess
import uuid

import msgspec
import pytest

from fraudstream.clients.clock import now_ms
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.feature_set import NINE
from fraudstream.core.partitioner import partition_of
from fraudstream.core.settings import Settings, make_settings
from fraudstream.core.transaction import decode_transaction
from fraudstream.stack import embedded
from monitoring.trace_report import Occurrence, Trace, TraceReport
from monitoring.trace_search import MOST_OCCURRENCES
from tests.integration.served_scores import fraud_label, made_score, transactional
from tests.integration.served_scores import send as send_results
from tests.integration.test_bad_records import all_done, good, send, wrong
from tests.integration.test_terminal import on_a_terminal
from tests.model_samples import with_contract
from tests.processes import Worker, command, run, wait_until, worker
from trainer.promote import Order, promote
from trainer.publish import publish
from verify.ledger import Log

PARTITIONS = 4
OF_C1 = partition_of(b"c1", PARTITIONS)
OTHER = (OF_C1 + 1) % PARTITIONS
OTHER_KEY = next(
    key for key in (b"k%d" % i for i in range(100)) if partition_of(key, PARTITIONS) == OTHER
)
CLEAR = b"\x1b[2J"
TURNED = "\u202e\x9b31m"
"""Turns the writing, and colours without an escape character: JSON lets both stand as they are."""
BROKEN = b'{"transaction_id": "broken", "kind": "' + CLEAR


@pytest.fixture(scope="module")
def traced(stack: embedded.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of an environment in which transactions of every fate were sent.

    One was scored before any model; later ones by version 1, whose threshold makes each an alert; one
    waits, and a score of it was produced in a transaction that was aborted.
    """
    folder = tmp_path_factory.mktemp("traced")
    settings = make_settings(
        {
            **msgspec.structs.asdict(stack),
            "environment": f"trace-{uuid.uuid4().hex[:8]}",
            "state_dir": str(folder),
            "partitions": PARTITIONS,
        }
    )
    create_topics(settings.kafka_bootstrap, settings.environment, PARTITIONS, timeout_ms=20_000)
    send(settings, [good("early")])
    with Log(settings) as log, worker(settings, folder / "scorer.log") as running:
        wait_until(lambda: all_done(settings, log), timeout_s=60, what="scored without a model")
        make_champion(settings)
        wait_until(lambda: swapped(settings, running), timeout_s=60, what="version 1 serves")
        send_every_kind(settings)
        wait_until(lambda: all_done(settings, log), timeout_s=60, what="all handled")
        assert running.stop() == 0
    answer(settings, "twice")
    send(settings, [good("late")])
    pretend(settings, "late", offset=8)
    return settings


def swapped(settings: Settings, running: Worker) -> bool:
    """Send one transaction more; return whether the worker says that it serves the model."""
    send(settings, [good("filler")], key=OTHER_KEY)
    return "serving version 1" in running.said()


def send_every_kind(settings: Settings) -> None:
    """Send what the tests ask for: offsets 1 to 7 of c1's partition, and two in another."""
    lacking = wrong(transaction_id="lacking", currency=None)
    escaped = wrong(transaction_id="zürich-7", kind=TURNED)
    assert b"\\u00fc" in escaped
    values = [good("twice"), lacking, BROKEN, None, good("twice"), good("twice-1"), escaped]
    send(settings, values)
    send(settings, [good("twice")], key=OTHER_KEY)
    send(settings, [good("keyless")], key=None, partition=OTHER)
    send(settings, [good("often")] * (MOST_OCCURRENCES + 2), key=OTHER_KEY)


def make_champion(settings: Settings) -> None:
    version = publish(settings, with_contract({"threshold": 0.0}), {})
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=5_000)
    order = Order(version=version, actor="ann", why="it is better", now_ms=now_ms())
    promote(settings, registry, order, feature_set=NINE)


def answer(settings: Settings, name: str) -> None:
    """Label a transaction fraud, correct that, and label one whose id begins alike."""
    paid = decode_transaction(good(name))
    score = made_score(0, event_time_ms=paid.event_time_ms, features=[])
    label = fraud_label(msgspec.structs.replace(score, transaction_id=name))
    label = msgspec.structs.replace(label, entities=paid.entities)
    later = msgspec.structs.replace(
        label, label="genuine", labelled_at_ms=label.labelled_at_ms + 1, analyst="mk"
    )
    other = msgspec.structs.replace(label, transaction_id=f"{name}-1")
    producer = transactional(settings)
    producer.begin_transaction()
    send_results(producer, settings, [], [label, other, later])
    producer.commit_transaction()


def pretend(settings: Settings, name: str, *, offset: int) -> None:
    """Produce a score that never happened: its Kafka transaction is aborted."""
    score = msgspec.structs.replace(
        made_score(offset, event_time_ms=1, features=[1.0] * 9),
        transaction_id=name,
        customer="c1",
        source_partition=OF_C1,
    )
    producer = transactional(settings)
    producer.begin_transaction()
    send_results(producer, settings, [score], [])
    producer.flush()
    producer.abort_transaction()


def report_of(settings: Settings, *arguments: str) -> TraceReport:
    done = run(settings, "trace", *arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=TraceReport)


def trace_of(settings: Settings, *arguments: str) -> Trace:
    (found,) = report_of(settings, *arguments).traces
    return found


def only(trace: Trace) -> Occurrence:
    (found,) = trace.occurrences
    return found


def page_of(settings: Settings, *arguments: str) -> str:
    done = run(settings, "trace", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.isprintable() and len(line) <= 80 for line in done.stdout.split("\n"))
    return " ".join(done.stdout.split())


def test_a_transaction_sent_several_times_shows_each_with_its_score_and_alert(
    traced: Settings,
) -> None:
    trace = trace_of(traced, "twice")
    first, again, elsewhere = trace.occurrences
    assert [(o.input.position.partition, o.input.position.offset) for o in (first, again)] == [
        (OF_C1, 1),
        (OF_C1, 5),
    ]
    assert elsewhere.input.position.partition == OTHER
    for each in trace.occurrences:
        place = each.input.position
        assert (each.state, each.dead_letter) == ("scored", None)
        assert each.score is not None
        assert each.alert is not None
        record = each.score.record
        assert (record.source_partition, record.source_offset) == (place.partition, place.offset)
        assert (record.model_version, record.decision) == ("1", "alert")
        assert each.alert.alert_id == f"{place.partition}-{place.offset}"
        assert each.score.no_usual is None
        assert all(feature.usual is not None for feature in each.score.features)
    assert first.score is not None
    assert again.score is not None
    assert (first.score.record.duplicate_of, again.score.record.duplicate_of) == (None, 1)


def test_of_an_id_sent_very_often_the_rest_is_counted(traced: Settings) -> None:
    trace = trace_of(traced, "often")
    assert (len(trace.occurrences), trace.more) == (MOST_OCCURRENCES, 2)
    assert {each.state for each in trace.occurrences} == {"scored"}


def test_its_labels_and_the_life_of_its_model_stand_beside_it(traced: Settings) -> None:
    trace = trace_of(traced, "twice")
    assert [(each.label, each.in_force, each.offset) for each in trace.labels] == [
        ("fraud", False, 0),
        ("genuine", True, 2),
    ]
    assert all(each.after_score and each.fits for each in trace.labels)
    events = [each.event for each in trace.audit]
    assert [each.event for each in events] == ["promote", "promote", "swap"]
    assert events[0].why == "it is better"


def test_the_page_says_the_same_in_words(traced: Settings) -> None:
    text = page_of(traced, "twice")
    for words in (
        "sent 3 times: 1 alert: score",
        f"transactions {OF_C1}:1 (partition:offset)",
        f"duplicate of transactions {OF_C1}:1",
        "headers source=test",
        "in force genuine",
        "feedback 0 fraud, labelled",
        "analyst mk",
        "promote done of version 1",
        "swap of version 1",
        "usual: median of genuine payments",
    ):
        assert words in text


def test_one_that_was_scored_before_any_model_says_so(traced: Settings) -> None:
    found = only(trace_of(traced, "early"))
    assert found.score is not None
    assert (found.score.record.model_version, found.alert) == (None, None)
    assert "before there was one" in (found.score.no_usual or "")
    assert "scored before any model" in page_of(traced, "early")


@pytest.mark.parametrize(
    ("name", "kind"), [("lacking", "invalid_field"), ("broken", "malformed_json")]
)
def test_a_dead_letter_is_found_by_the_id_in_its_bytes(
    traced: Settings, name: str, kind: str
) -> None:
    found = only(trace_of(traced, name))
    assert (found.state, found.score) == ("dead_letter", None)
    assert found.dead_letter is not None
    assert found.dead_letter.kind == kind
    assert f"dead letter: {kind}" in page_of(traced, name)


def test_the_bytes_of_a_dead_letter_do_nothing_to_the_terminal(traced: Settings) -> None:
    status, shown = on_a_terminal(traced, "trace", "broken")
    assert status == 0
    assert r'"kind": "\x1b[2J' in " ".join(shown.split())
    assert CLEAR.decode() not in shown


def test_a_record_without_a_value_is_found_by_its_position(traced: Settings) -> None:
    trace = trace_of(traced, f"{OF_C1}:4")
    assert (trace.by, trace.transaction_id) == ("position", None)
    letter = only(trace).dead_letter
    assert letter is not None
    assert (letter.kind, letter.original.size_bytes) == ("null_value", None)


def test_an_alert_id_leads_to_its_transaction_and_labels_without_a_search(traced: Settings) -> None:
    report = report_of(traced, f"{OF_C1}-5")
    (trace,) = report.traces
    assert (trace.by, trace.transaction_id, report.searched) == ("position", "twice", 0)
    assert only(trace).input.position.offset == 5
    assert len(trace.labels) == 2


def test_the_result_of_a_record_without_a_key_is_found_wherever_it_stands(traced: Settings) -> None:
    found = only(trace_of(traced, "keyless"))
    assert (found.state, found.input.key) == ("scored", None)


def test_an_id_that_its_writer_escaped_is_found(traced: Settings) -> None:
    assert only(trace_of(traced, "zürich-7")).state == "scored"


def test_json_holds_the_text_of_a_record_without_its_control_characters(traced: Settings) -> None:
    done = run(traced, "trace", "zürich-7", "--json", "-")
    assert all(line.isprintable() for line in done.stdout.split("\n"))
    (trace,) = msgspec.json.decode(done.stdout, type=TraceReport).traces
    paid = only(trace).input.transaction
    assert paid is not None
    assert paid.kind == TURNED
    assert r"\u202e\x9b31m" in page_of(traced, "zürich-7")


def test_one_that_is_not_scored_yet_says_where_the_group_stands(traced: Settings) -> None:
    found = only(trace_of(traced, "late"))
    assert (found.state, found.committed, found.input.position.offset) == ("waiting", 8, 8)
    assert f"has committed partition {OF_C1} up to offset 8" in page_of(traced, "late")


def test_of_a_named_customer_the_partition_alone_is_searched(traced: Settings) -> None:
    report = report_of(traced, "twice", "--customer", "c1")
    assert report.partitions == [OF_C1]
    assert report.searched == 9
    assert len(report.traces[0].occurrences) == 2


def test_an_unknown_id_says_what_was_searched_and_what_to_do(traced: Settings) -> None:
    done = run(traced, "trace", "twice-", "twice-1", "1-999", "--json", "-")
    assert done.returncode == 1
    report = msgspec.json.decode(done.stdout, type=TraceReport)
    assert [each.asked for each in report.traces] == ["twice-1"]
    assert report.unknown == ["twice-", "1-999"]
    assert (
        f" records of topic {traced.environment}.transactions, partitions 0, 1, 2, 3:"
        in done.stderr
    )
    assert "--set environment=" in done.stderr
    narrowed = run(traced, "trace", "keyless-", "--customer", "c1")
    assert narrowed.returncode == 1
    assert "try without --customer" in narrowed.stderr


def test_a_name_like_a_position_can_be_taken_for_an_id(traced: Settings) -> None:
    done = run(traced, "trace", f"{OF_C1}-5", "--ids")
    assert done.returncode == 1
    assert f"no transaction {OF_C1}-5" in done.stderr


def test_without_mlflow_the_page_is_full_and_says_what_is_missing(traced: Settings) -> None:
    away = msgspec.structs.replace(traced, mlflow_url="http://127.0.0.1:1")
    text = page_of(away, "twice")
    assert "usual values are missing: MLflow at http://127.0.0.1:1 does not answer" in text
    assert "amount_ratio" in text
    assert "swap of version 1" in text


def test_a_kafka_that_does_not_answer_ends_it_with_a_sentence(traced: Settings) -> None:
    away = msgspec.structs.replace(traced, kafka_bootstrap="127.0.0.1:1", connect_timeout_ms=1_000)
    done = run(away, "trace", "twice")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Kafka at 127.0.0.1:1 does not answer")


def test_without_topics_it_says_how_to_make_them(settings: Settings) -> None:
    done = run(settings, "trace", "twice")
    assert done.returncode == 3
    assert done.stderr.endswith("make it with `fraudstream topics create`\n")


def test_nothing_asked_for_is_wrong_usage(settings: Settings) -> None:
    assert run(settings, "trace").returncode == 2
    for wrong_usage in (
        ("x", "--json", "/no/such/folder/x"),
        ("",),
        ("\udcff",),
        ("x", "--customer", "\udcff"),
    ):
        done = run(settings, "trace", *wrong_usage)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_who_leaves_ends_it_without_a_stack_trace(traced: Settings) -> None:
    shell = f"set -o pipefail; {shlex.join(command(traced, 'trace', 'twice'))} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
