"""Guards of the recovery, each beside mutants without it that the same scenario must find harmful."""

import os
import signal

import pytest
from confluent_kafka import Producer

from fraudstream.clients.feature_state import FeatureState
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Entities, Transaction, encode
from tests.integration.recovery_run import (
    TOTAL,
    Records,
    Run,
    check,
    forget_the_beginning,
    send_some,
    state_of,
    transactions,
)
from tests.integration.served_scores import T0, transactional
from tests.integration.test_workers import view
from tests.ports import free_port
from tests.processes import Worker, faster, wait_until
from tests.processes import run as run_command

# A worker that was frozen while the server was emptied and another rebuilt the state


def owner_of(run: Run, partition: int) -> Worker:
    """Wait until two workers own a partition each; return who owns this one."""
    owned = [f"owns partitions [{each}]" for each in (0, 1)]
    wait_until(
        lambda: all(text in run.said() for text in owned), timeout_s=40, what="a partition each"
    )
    (found,) = (each for each in run.workers if owned[partition] in each.said())
    return found


def pay(run: Run, producer: Producer, partition: int, days: range) -> None:
    """Put a payment a day at one terminal into a partition, all of one customer."""
    name = topic_name(run.settings.environment, "transactions")
    customer = f"customer {partition}"
    producer.begin_transaction()
    for day in days:
        paid = Transaction(
            1,
            f"{partition}-{day}",
            T0 + day * DAY_MS,
            "purchase",
            2_000,
            "EUR",
            Entities(customer, "terminal"),
        )
        producer.produce(name, key=customer, value=encode(paid), partition=partition)
    producer.commit_transaction()


def wait_for_scores(run: Run, count: int) -> None:
    wait_until(
        lambda: sum(1 for _ in run.log.records("scores")) == count, timeout_s=30, what="scored"
    )


def lose_while_frozen(run: Run, *changes: str) -> None:
    """Empty the server twice, the second time while a worker without records is frozen; let that one score.

    Both rebuilds end at the same revision, so that nothing but the incarnation tells the states apart.
    """
    port = free_port(adjacent=2) + 1  # of slot 1
    run.settings = faster(run.settings, web_port=port - 1)
    state, producer = state_of(run), transactional(run.settings)
    first = run.start(*changes)
    pay(run, producer, 0, range(30))
    wait_for_scores(run, 30)
    run.server.client.flushall()
    wait_until(lambda: "whole again; the batch" in first.said(), timeout_s=30, what="rebuilt")
    run.start(*changes)
    idle = owner_of(run, 1)
    wait_until(lambda: view(port, "/healthz")[0] == 200, timeout_s=30, what="has adopted the state")
    pay(run, producer, 0, range(30, 31))  # the first worker sees the next loss by its places, too
    wait_for_scores(run, 31)
    former = state.look()
    idle.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_stopped(idle), timeout_s=5, what="frozen")
    run.server.client.flushall()
    wait_until(lambda: is_rebuilt(run, state, 31), timeout_s=30, what="rebuilt without it")
    assert former is not None
    assert (state.meta.state, state.meta.revision) == (former.state, former.revision)
    assert state.meta.incarnation != former.incarnation
    idle.process.send_signal(signal.SIGCONT)
    pay(run, producer, 1, range(31, 41))
    wait_for_scores(run, 41)


def is_rebuilt(run: Run, state: FeatureState, mark: int) -> bool:
    meta = state.look()
    ready = meta is not None and meta.state == "ready"
    return ready and state.marks(run.topic_id, [0]) == {0: mark}


def test_a_worker_that_was_frozen_scores_on_the_state_that_was_rebuilt_meanwhile(run: Run) -> None:
    lose_while_frozen(run)
    check(run)


pytestmark = pytest.mark.proof
NOT_COMPARED = ["calls do not compare the incarnation", "calls do not compare the record"]


@pytest.mark.parametrize("mutant", NOT_COMPARED)
def test_a_worker_that_does_not_see_another_incarnation_is_found(run: Run, mutant: str) -> None:
    lose_while_frozen(run, mutant)
    with pytest.raises(AssertionError):
        check(run)


# A rebuilder that is frozen beyond its lease

PLACES = {
    "freeze before the first fold": "calls do not compare the record",
    "freeze before the state is ready": "moves do not compare the record",
    "freeze before former states are deleted": "deletions do not compare the record",
}
"""Where it is frozen, and the mutant that then lets it do harm."""


def is_stopped(worker: Worker) -> bool:
    pid, status = os.waitpid(worker.process.pid, os.WUNTRACED | os.WNOHANG)
    return pid != 0 and os.WIFSTOPPED(status)


def wake_a_rebuilder(run: Run, place: str, *changes: str) -> None:
    """Let a worker rebuild, freeze it there, lose the state again; another rebuilds; then it wakes.

    What it had in hand is for a state that no longer is, so it must leave everything as the other made it.
    """
    frozen = run.start(place, *changes)
    send_some(run, 6_000)
    run.server.client.flushall()
    wait_until(lambda: is_stopped(frozen), timeout_s=30, what="frozen while it rebuilds")
    run.server.client.flushall()
    second = run.start(*changes)
    send_some(run, 12_000)
    assert "this worker rebuilds the features" in second.said()
    state = state_of(run)
    record, rebuilds = state.look(), second.said().count("scoring stops until")
    frozen.process.send_signal(signal.SIGCONT)
    wait_until(
        lambda: frozen.said().count("owns partitions") > 1, timeout_s=30, what="back in the group"
    )
    send_some(run, TOTAL)
    assert state.look() == record, "it has moved the state"
    assert second.said().count("scoring stops until") == rebuilds, "it has made the features lost"
    assert former_keys(run, state) == [], "it has written into a state that no longer is"


def former_keys(run: Run, state: FeatureState) -> list[bytes]:
    """Return the keys that belong to no incarnation, or to another than the present one."""
    keys = run.server.client.scan_iter(f"{state.tag}:v*", count=1_000)
    return [key for key in keys if not key.startswith(state.prefix.encode())][:5]


@pytest.mark.parametrize("place", PLACES)
def test_a_rebuilder_frozen_beyond_its_lease_changes_nothing_when_it_wakes(
    run: Run, place: str
) -> None:
    wake_a_rebuilder(run, place)
    check(run)


@pytest.mark.parametrize("place", PLACES)
def test_a_rebuilder_that_nothing_fences_is_found_when_it_wakes(run: Run, place: str) -> None:
    with pytest.raises(AssertionError, match=r"^it has "):
        wake_a_rebuilder(run, place, PLACES[place])


# A rebuilder that is killed


WHOLE = "features are whole again"


def freeze_a_rebuilder(run: Run, *changes: str) -> Worker:
    """Return a worker that has lease and turn, and has folded nothing."""
    first = run.start("freeze before the first fold", *changes)
    send_some(run, 4_000)
    run.server.client.flushall()
    wait_until(lambda: is_stopped(first), timeout_s=30, what="it rebuilds")
    return first


def kill_a_rebuilder(run: Run, *changes: str) -> None:
    """Kill a worker before it folds anything; another, of another slot, must take the rebuild over."""
    first = freeze_a_rebuilder(run, *changes)
    second = run.start(*changes)
    wait_until(lambda: "takes place" in second.said(), timeout_s=20, what="another began")
    first.kill()
    wait_until(lambda: WHOLE in second.said(), timeout_s=20, what="another took over")


def test_a_rebuilder_that_is_killed_is_followed_by_another(run: Run) -> None:
    kill_a_rebuilder(run)
    send_some(run, TOTAL)
    check(run)


def test_a_rebuilder_that_is_started_again_does_not_wait_for_its_own_lease(run: Run) -> None:
    endless = "leases have no end"
    freeze_a_rebuilder(run, endless).kill()
    again = run.start(endless)
    wait_until(lambda: WHOLE in again.said(), timeout_s=20, what="it took its turn again")
    send_some(run, TOTAL)
    check(run)


def test_a_lease_without_an_end_is_found_when_its_holder_is_killed(run: Run) -> None:
    with pytest.raises(AssertionError, match="another took over"):
        kill_a_rebuilder(run, "leases have no end")


# A log that begins after what the snapshot has


def lose_log_and_state(run: Run, *changes: str) -> tuple[Worker, int, Records]:
    """Take a snapshot, then let retention take records after it, and the server lose the state.

    Returns the worker that rebuilds, the last offset of partition 0 in the snapshot, and the log before.
    """
    first = run.start(*changes)
    send_some(run, 4_000)
    taken = run_command(run.settings, "features", "snapshot")
    assert taken.returncode == 0, taken.stderr
    covered = state_of(run).marks(run.topic_id, [0])[0]
    send_some(run, 8_000)
    former = transactions(run)
    forget_the_beginning(run, covered + 2)
    run.server.client.flushall()
    wait_until(
        lambda: first.process.poll() is not None or "features are whole again" in first.said(),
        timeout_s=30,
        what="refused or rebuilt",
    )
    return first, covered, former


def test_a_log_that_begins_after_the_snapshot_ends_is_refused_with_what_to_do(run: Run) -> None:
    first, covered, _ = lose_log_and_state(run)
    assert first.process.wait(15) == 3, first.said()[-2_000:]
    said = first.said()
    assert "the rebuild begins with snapshot" in said
    assert f"after offset {covered} of partition 0" in said
    assert f"the log has only {covered + 2} to" in said
    assert "fraudstream features restore FILE" in said


def test_a_rebuild_that_does_not_ask_where_the_log_begins_is_found(run: Run) -> None:
    first, _, former = lose_log_and_state(run, "a rebuild does not ask where the log begins")
    assert first.process.poll() is None, "the mutant goes on"
    send_some(run, TOTAL)
    with pytest.raises(AssertionError):
        check(run, former)
