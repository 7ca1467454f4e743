"""Whether a dead worker came back or others took over: who was started since, and which place each took."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fraudstream.clients import kafka
from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.locks import pause
from verify.chaos import fleet as fleet_module
from verify.chaos import play
from verify.chaos.fleet import End, Fleet, Worker
from verify.chaos.play import MOST_TRIES, Parts, Player
from verify.chaos.points import ENDED_BY, KEPT
from verify.chaos.schedule import RANDOM, Event
from verify.chaos.stage import Sender
from verify.chaos.watch import Watch
from verify.chaos.worker import tell_kept_places

SAY = "import sys, time; print(sys.argv[1], flush=True); time.sleep(600)"
BEGIN_S = 20.0
SESSION_S = Settings().session_timeout_ms / 1000


def place(number: int) -> str:
    """Return a line of a scorer's log."""
    return json.dumps({"level": "INFO", "message": f"takes place chaos.scorer.{number}"})


OWNS = json.dumps({"level": "INFO", "message": "owns partitions [2, 3]"})


class Processes(Fleet):
    """A fleet of processes that say something and sleep."""

    def __init__(self, logs: Path) -> None:
        super().__init__(Settings(environment="chaos"), logs, None)
        self.say = place(9)
        self.say_command: list[str] = []

    def _command(self, *, leaves: bool) -> list[str]:
        assert ("--leave" in super()._command(leaves=leaves)) == leaves
        return self.say_command or [sys.executable, "-c", SAY, self.say]

    def begin(self, *lines: str) -> Worker:
        """Start one that says these lines, and wait until it has."""
        self.say = "\n".join(("it begins", *lines))
        made = self.start()
        deadline = monotonic_s() + BEGIN_S
        while len(made.said().splitlines()) < 1 + len(lines):
            assert monotonic_s() < deadline, made.said()
            pause(0.01)
        return made


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "workers") as made:
        yield made


def die(worker: Worker, *, before_s: float = 0.0) -> Worker:
    """Kill a worker, as if so many seconds ago."""
    worker.kill()
    worker.ended_s -= before_s
    return worker


def test_a_worker_has_come_back_once_another_has_its_place(fleet: Processes) -> None:
    dead, _ = fleet.begin(place(0)), fleet.begin(place(1))
    waits = fleet.begin()
    die(dead)
    assert not fleet.restarted(dead)
    waits.log.write_text(place(0))  # started before the death, and had no place then
    assert fleet.restarted(dead)


@pytest.mark.parametrize("end", [Worker.kill, Worker.freeze])
def test_who_is_dead_or_frozen_holds_no_place(
    fleet: Processes, end: Callable[[Worker], None]
) -> None:
    dead, again = fleet.begin(place(0)), fleet.begin(place(0))
    die(dead)
    assert fleet.restarted(dead)
    end(again)
    assert not fleet.restarted(dead)


def test_where_nobody_was_started_others_take_over(fleet: Processes) -> None:
    dead, _ = fleet.begin(place(0)), fleet.begin(place(1))
    assert not fleet.restarted(die(dead))


def test_who_was_started_and_has_no_place_yet_is_a_restart(fleet: Processes) -> None:
    dead, _ = fleet.begin(place(0)), fleet.begin(place(1))
    die(fleet.begin())
    die(dead)
    fleet.begin()
    assert fleet.restarted(dead), "that another had none either is no excuse"


def test_who_took_the_place_of_another_that_had_just_died_is_excused(fleet: Processes) -> None:
    other, dead = fleet.begin(place(0)), fleet.begin(place(1))
    fleet.begin(place(2))
    die(other, before_s=SESSION_S - 3)
    die(dead)
    fleet.begin(place(0))
    assert not fleet.restarted(dead)
    fleet.begin()
    assert fleet.restarted(dead), "all that were started must be excused"


def test_who_took_a_place_that_nobody_had_is_not_excused(fleet: Processes) -> None:
    dead, _ = fleet.begin(place(0)), fleet.begin(place(1))
    die(dead)
    fleet.begin(place(2))
    assert fleet.restarted(dead)


def test_who_took_the_place_of_the_dead_and_died_as_well_is_not_excused(fleet: Processes) -> None:
    before, dead = fleet.begin(place(0)), fleet.begin(place(0))
    die(before)
    die(dead)
    die(fleet.begin(place(0)))
    assert fleet.restarted(dead)


def test_a_place_whose_worker_died_a_session_ago_excuses_only_if_the_group_still_counted_it(
    fleet: Processes,
) -> None:
    other, dead = fleet.begin(place(0)), fleet.begin(place(1))
    die(other, before_s=SESSION_S + 1)
    die(dead)
    new = fleet.begin(f"{KEPT}chaos.scorer.1", place(0))
    assert fleet.restarted(dead)
    new.log.write_text(f"{KEPT}chaos.scorer.0 chaos.scorer.1\n{place(0)}")
    assert not fleet.restarted(dead)


def test_that_the_group_counts_a_place_excuses_nobody_unless_its_worker_had_ended(
    fleet: Processes,
) -> None:
    other, dead = fleet.begin(place(0)), fleet.begin(place(1))
    die(dead)
    fleet.begin(f"{KEPT}chaos.scorer.0 chaos.scorer.1", place(0))
    die(other)
    assert fleet.restarted(dead)


def test_the_place_of_one_that_was_frozen_beyond_its_session_excuses_nobody(
    fleet: Processes,
) -> None:
    zombie, dead = fleet.begin(place(0)), fleet.begin(place(1))
    zombie.freeze()
    zombie.wake()
    die(zombie)
    die(dead)
    fleet.begin(place(0))
    assert fleet.restarted(dead)


def test_the_place_of_one_that_was_stopped_excuses_unless_it_left(fleet: Processes) -> None:
    stays, leaves = fleet.begin(place(0)), fleet.begin(place(1))
    assert (stays.leaves, leaves.leaves) == (False, True)
    dead = fleet.begin(place(2))
    fleet.stop(stays)
    fleet.stop(leaves)
    die(dead)
    fleet.begin(place(0))
    assert not fleet.restarted(dead)
    fleet.begin(place(1))
    assert fleet.restarted(dead)


def test_a_leaving_worker_that_was_killed_has_not_left(fleet: Processes) -> None:
    dead, leaves = fleet.begin(place(0)), fleet.begin(place(1))
    assert die(leaves).leaves
    die(dead)
    fleet.begin(place(1))
    assert not fleet.restarted(dead)


def test_an_end_is_noted_before_anybody_is_started_for_it(fleet: Processes) -> None:
    dead = fleet.begin(place(0))
    fleet.wanted = 1
    dead.process.kill()
    dead.process.wait()
    fleet.look()
    assert dead.ended_s <= fleet.workers[-1].started_s
    noted_s = dead.ended_s
    fleet.look()
    assert dead.ended_s == noted_s


def test_a_worker_tells_which_places_the_group_counts(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kafka, "kept_places", lambda _, group: [f"{group}.1", f"{group}.0"])
    tell_kept_places()
    assert kafka.kept_places(Settings(), "chaos.scorer") == ["chaos.scorer.1", "chaos.scorer.0"]
    worker = fleet.begin()
    assert worker.kept() == []
    worker.log.write_text(capsys.readouterr().err + place(1))
    assert worker.kept() == ["chaos.scorer.1", "chaos.scorer.0"]


def end_by(worker: Worker, number: signal.Signals) -> None:
    worker.process.send_signal(number)
    worker.process.wait()


def test_a_worker_that_dies_otherwise_than_as_it_was_armed_to_is_an_unplanned_end(
    fleet: Processes,
) -> None:
    armed, disarmed, crashed = (fleet.begin(place(number)) for number in range(3))
    for each in (armed, disarmed, crashed):
        each.arm("emit.after", 3)
    disarmed.disarm()
    end_by(armed, signal.SIGKILL)
    end_by(disarmed, signal.SIGKILL)  # it passed the point before it heard
    end_by(crashed, signal.SIGSEGV)
    fleet.look()
    fleet.look()
    assert fleet.unplanned == [End(crashed.log.name, -signal.SIGSEGV, place(2))]
    assert [each.killed for each in (armed, disarmed, crashed)] == [True, True, False]


def test_a_worker_that_is_stopped_or_was_frozen_must_not_end_by_a_crash(fleet: Processes) -> None:
    workers = [fleet.begin(place(number)) for number in range(3)]
    stopped, woken, nobody_asked = workers
    woken.freeze()
    woken.wake()
    end_by(woken, signal.SIGABRT)
    fleet.stop(stopped)
    end_by(nobody_asked, signal.SIGTERM)
    fleet.look()
    assert [end.log for end in fleet.unplanned] == [woken.log.name, nobody_asked.log.name]


@pytest.mark.parametrize(
    ("said", "listed"),
    [
        (["error: this worker was fenced", f"{ENDED_BY}Fenced"], False),
        (["error: this worker was fenced"], True),
        (["KeyError: 'x'"], True),
    ],
)
def test_who_was_frozen_may_say_that_it_was_fenced(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch, said: list[str], *, listed: bool
) -> None:
    zombie = fleet.begin(place(0), *said)
    zombie.freeze()
    zombie.wake()
    end_by(zombie, signal.SIGTERM)
    monkeypatch.setattr(zombie.process, "returncode", 4)
    fleet.look()
    assert bool(fleet.unplanned) is listed


def test_a_worker_that_a_server_does_not_let_end_has_said_why_before(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = "[^HotPathService]: Crashed reason=KafkaUnreachable('Kafka does not answer')"
    worker = fleet.begin(place(0), crash, "a server did not let it end; it ends all the same")
    end_by(worker, signal.SIGTERM)
    monkeypatch.setattr(worker.process, "returncode", 1)
    assert worker.end == End(worker.log.name, 1, crash)
    assert worker.end.explained


END_AS = """
import sys
from fraudstream import cli
from fraudstream.core import errors
from verify.chaos import worker
def fail(**_):
    raise getattr(errors, sys.argv.pop(1))("it is so")
worker.become(lambda: (setattr(cli, "root", fail), cli.main()))
"""


@pytest.mark.parametrize(
    ("kind", "explained"),
    [
        ("KafkaUnreachable", True),
        ("WritesRefused", True),
        ("Fenced", True),
        ("FraudstreamError", False),
        ("Refused", False),
        ("TooLittle", False),
    ],
)
def test_a_worker_tells_by_which_error_it_ends_and_only_some_explain_an_end(
    fleet: Processes, kind: str, *, explained: bool
) -> None:
    fleet.say_command = [sys.executable, "-c", END_AS, kind]
    ended = fleet.start()
    ended.process.wait(BEGIN_S)
    fleet.look()
    (end,) = fleet.unplanned
    assert (end.said, end.by) == ("error: it is so", kind)
    assert end.explained is explained


def test_two_workers_that_run_share_nothing_while_one_of_them_has_no_partitions(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.begin(place(0), OWNS)
    second = fleet.begin(place(1))
    now_s = monotonic_s()

    def look_after(seconds: float) -> tuple[float, float]:
        nonlocal now_s
        now_s += seconds
        fleet.look()
        return round(fleet.two_or_more_run_share, 2), round(fleet.two_or_more_own_share, 2)

    monkeypatch.setattr(fleet_module, "monotonic_s", lambda: now_s)
    look_after(0.0)
    assert look_after(1.0) == (1.0, 0.0)
    second.log.write_text(f"{place(1)}\n{OWNS}\n")
    assert look_after(1.0) == (1.0, 0.5)
    second.kill()
    assert look_after(2.0) == (0.5, 0.25)


class Expected:
    """Takes the place of the watch: keeps what is expected, as which nothing ever comes."""

    def __init__(self) -> None:
        self.kinds: list[Callable[[], str]] = []

    def tell(self, fault: str) -> None:
        """Nobody asks."""

    def drop(self) -> None:
        """Nothing is measured."""

    def expect(self, kind: Callable[[], str], partitions: set[int]) -> None:
        """Keep the question."""
        assert partitions == {2, 3}
        self.kinds.append(kind)


def parts_of(fleet: Fleet, watch: Expected) -> Parts:
    sender = cast("Sender", SimpleNamespace(check=lambda: None))
    return Parts(fleet=fleet, sender=sender, watch=cast("Watch", watch))


def kill_one(fleet: Fleet) -> Expected:
    """Play a kill of the one worker that owns partitions; return what the recovery is asked."""
    watch = Expected()
    parts = parts_of(fleet, watch)
    player = Player(Settings(), parts, versions=[], tell=lambda _: None, seed=1)
    player.play([Event(what="kill", point=RANDOM, wait=False)])
    return watch


class Served(Expected):
    """Has seen a version score after it was asked for it three times."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.after = 3

    def has_seen(self, version: str) -> bool:
        """Return whether that was so."""
        self.asked.append(version)
        return self.asked.count(version) >= self.after


def player_of(fleet: Fleet, watch: Expected, versions: list[str]) -> Player:
    return Player(
        Settings(), parts_of(fleet, watch), versions=versions, tell=lambda _: None, seed=1
    )


def test_a_version_is_replaced_and_a_run_ends_only_once_it_has_scored(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Served()
    asked_before: list[int] = []
    monkeypatch.setattr(play, "promote_version", lambda *_: asked_before.append(len(watch.asked)))
    player = player_of(fleet, watch, ["2", "3"])
    player.play([Event(what="swap"), Event(what="swap")])
    assert player.promoted == ["2", "3"]
    assert asked_before == [0, 3]
    assert watch.asked == ["2"] * 3 + ["3"] * 3


def test_a_version_that_never_scores_ends_the_run(
    fleet: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "promote_version", lambda *_: None)
    monkeypatch.setattr(play, "COMMIT_S", 0.05)
    watch = Served()
    watch.after = 1_000_000
    with pytest.raises(FraudstreamError, match="version 2 was promoted and has scored nothing"):
        player_of(fleet, watch, ["2"]).play([Event(what="swap")])


def test_what_a_recovery_was_is_decided_when_it_is_over(fleet: Processes) -> None:
    fleet.begin(place(0), OWNS)
    fleet.begin(place(1))
    fleet.wanted = 1
    (kind,) = kill_one(fleet).kinds
    assert kind() == "takeover"
    fleet.begin(place(0))
    assert kind() == "restarted_worker"


def test_a_worker_with_partitions_whose_log_tells_no_place_ends_the_run(fleet: Processes) -> None:
    fleet.begin(OWNS)
    with pytest.raises(
        FraudstreamError, match=r"worker-1\.log tells of partitions and of no place"
    ):
        kill_one(fleet)


class Missing(Player):
    """Kills nobody at some points."""

    def __init__(self, fleet: Fleet, *missed: str) -> None:
        parts = parts_of(fleet, Expected())
        super().__init__(Settings(), parts, versions=[], tell=lambda _: None, seed=1)
        self._never = missed

    def _kill(self, event: Event) -> bool:
        if event.point in self._never:
            return False
        self.kills_by_point[event.point] += 1
        return True


def test_a_kill_whose_point_is_never_passed_is_made_up_for_by_a_random_one(
    fleet: Processes,
) -> None:
    player = Missing(fleet, "emit.after")
    player.play([Event(what="kill", point=point) for point in ("emit.after", "poll.before")])
    assert player.kills_by_point == {"poll.before": 1, RANDOM: 1}
    assert player.missed == {"emit.after": MOST_TRIES}


def test_a_kill_that_never_comes_about_is_given_up_and_not_counted(fleet: Processes) -> None:
    player = Missing(fleet, "emit.after", RANDOM)
    player.play([Event(what="kill", point="emit.after")])
    assert player.kills == 0
    assert player.missed == {"emit.after": MOST_TRIES, RANDOM: MOST_TRIES}


def test_a_worker_that_crashes_where_it_was_to_be_killed_counts_as_no_kill(
    fleet: Processes,
) -> None:
    fleet.begin(place(0), OWNS)
    player = Player(
        Settings(), parts_of(fleet, Expected()), versions=[], tell=lambda _: None, seed=1
    )
    crash, arm = signal.SIGSEGV, Worker.arm

    def armed(worker: Worker, point: str, passings: int) -> None:
        arm(worker, point, passings)
        end_by(worker, crash if worker is fleet.workers[0] else signal.SIGKILL)

    fleet.wanted = 1
    fleet.say = f"{place(1)}\n{OWNS}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "arm", armed)
        player.play([Event(what="kill", point="emit.after", wait=False)])
    assert (player.kills, player.missed) == (1, {"emit.after": 1})
    assert [end.status for end in fleet.unplanned] == [-crash]
