"""A training that a server breaks off again and again is counted, and begins anew less and less often."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from trainer import service
from trainer.service import Rhythm, TrainerService

HOUR = Rhythm(every_s=3_600.0, days=None, feature_set=None, actor="test")


class Clock:
    """Goes on by what is waited for; ends the loop after a day."""

    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > 86_400:
            raise KeyboardInterrupt


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times at which a training began, all of which MLflow broke off after 30 s."""
    found: list[float] = []
    clock = Clock()

    def train(*_: object) -> None:
        found.append(clock.now_s)
        clock.now_s += 30
        raise DependencyUnreachable("MLflow did not take the new version")

    monkeypatch.setattr(service, "train", train)
    monkeypatch.setattr(service, "monotonic_s", clock.monotonic_s)
    monkeypatch.setattr(service, "find_set", lambda *_: None)
    monkeypatch.setattr(service, "offsets_now", lambda *_: {})
    monkeypatch.setattr(service, "learned_from", lambda *_: object())
    monkeypatch.setattr(TrainerService, "_look", lambda _: None)
    monkeypatch.setattr(TrainerService, "_learned_last", lambda *_: None)
    monkeypatch.setattr(service, "threading", SimpleNamespace(Event=lambda: clock))
    return found


def test_a_training_that_is_broken_off_each_time_is_not_repeated_at_once(
    trainings: list[float], tmp_path: Path
) -> None:
    said: list[str] = []
    made = TrainerService(Settings(state_dir=str(tmp_path)), HOUR, said.append)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    gaps = [after - before - 30 for before, after in itertools.pairwise(trainings)]
    assert gaps[:4] == [10, 20, 40, 80]
    assert max(gaps) == gaps[-1] == HOUR.every_s
    page = generate_latest(made.registry).decode()
    assert f'trainings_total{{outcome="failed"}} {len(trainings) - 1}.0' in page, "once happens"
    assert said[:2] == [
        "a server broke the training off; all of it is done again in 10 s",
        "MLflow did not take the new version; asked again in 5 s",
    ]
