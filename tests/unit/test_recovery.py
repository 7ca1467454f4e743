"""What a proof of the features is worth whose server began anew meanwhile; stand-ins play the servers."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fraudstream.clients.feature_state import FeatureState
from fraudstream.core.settings import Settings
from scorer.recovery import Recovery

LOST = 120
"""A server that comes back has applied so many records of what it had."""
NOBODY: Any = None


class Rebuilt(Exception):
    """The features were found to lack something."""


class State:
    """A state of which the last records are lost while the broker is asked how far the group is."""

    def __init__(self, *, began_anew: bool) -> None:
        self.process = "first"
        self.server = SimpleNamespace(run_id=lambda: self.process)
        self.feature_set = SimpleNamespace(name="nine", hash="44df")
        self.meta = SimpleNamespace(state="ready", feature_set="")
        self.began_anew = began_anew
        self.vouched = 0
        self.committed = {0: LOST - 20}

    def check_server(self) -> None:
        pass

    def vouch(self, _: int, process: str) -> bool:
        self.vouched += process == self.process
        return process == self.process

    def move(self, _: str) -> bool:
        raise Rebuilt

    def committed_everywhere(self) -> dict[int, int]:
        told = dict(self.committed)
        if self.began_anew:
            self.process, self.committed = "second", {0: LOST + 30}
        return told


def recovery(state: State) -> Recovery:
    store = SimpleNamespace(
        state=cast("FeatureState", state),
        adopt=lambda: state.meta,
        marks=lambda *_: {0: LOST},
    )
    assignment = SimpleNamespace(
        check=lambda _: None, committed_everywhere=state.committed_everywhere
    )
    topic = SimpleNamespace(topic_id="id", partitions=1)
    return Recovery(
        settings=Settings(),
        store=cast("Any", store),
        topics=(cast("Any", topic), NOBODY),
        assignment=cast("Any", assignment),
        waiting=cast("Any", SimpleNamespace(go_on=lambda: None, keep=lambda _: None)),
        status=cast("Any", SimpleNamespace()),
    )


def test_a_proof_on_one_process_of_the_server_holds() -> None:
    state = State(began_anew=False)
    assert recovery(state).prove() is False
    assert state.vouched == 1


def test_a_proof_whose_server_began_anew_meanwhile_is_done_again() -> None:
    state = State(began_anew=True)
    with pytest.raises(Rebuilt):
        recovery(state).prove()
    assert state.vouched == 0
