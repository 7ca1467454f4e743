"""The peers of the pipeline benchmark really do the work: every transaction, its windows, its score."""

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.settings import Settings
from tests.processes import wait_until
from verify.bench import backlog
from verify.bench.backlog import send
from verify.bench.load import Load
from verify.bench.model import bench_model
from verify.bench.quix_environment import python_with
from verify.bench.rivals import NAMES, Rivals, ready
from verify.ledger import Log

TRANSACTIONS = 3_000


class Scored(msgspec.Struct):
    transaction_id: str
    event_time_ms: int
    customer: str
    amount_minor: int
    score: float
    features: dict[str, float]


class Windows:
    """A plain count of each customer's last days, transactions in the order of their time."""

    def __init__(self) -> None:
        self._entries: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    def add(self, paid: Scored) -> dict[str, float]:
        entries = self._entries[paid.customer]
        entries.append((paid.event_time_ms, paid.amount_minor))
        found: dict[str, float] = {}
        for days in (1, 7, 14):
            amounts = [a for at, a in entries if at > paid.event_time_ms - days * DAY_MS]
            found[f"customer_count_{days}d"] = len(amounts)
            found[f"customer_sum_{days}d"] = sum(amounts) / 100
        return found


def scored(settings: Settings, peer: str) -> list[Scored]:
    with Log(settings) as log:
        return [
            msgspec.json.decode(record.value or b"", type=Scored)
            for record in log.records(f"{peer}.scores")
        ]


@pytest.mark.proof
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_scores_every_transaction_with_the_right_windows(
    topics: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        (peer,) = [each for each in ready(lambda _: None) if each.name == name]
    except DependencyUnreachable as exc:
        pytest.skip(str(exc))
    monkeypatch.setattr(backlog, "CHUNK", TRANSACTIONS)
    send(topics, Load(100, 200, per_day=200), TRANSACTIONS)
    features = np.random.default_rng(1).lognormal(0, 1, (2_000, 9)).astype(np.float32)
    with Rivals(topics, bench_model(features), [peer]), Log(topics) as log:
        wait_until(
            lambda: log.lag(name)[0] == TRANSACTIONS and len(scored(topics, name)) >= TRANSACTIONS,
            timeout_s=60,
            what=f"{name} has scored and committed all",
        )
    found = sorted(scored(topics, name), key=lambda each: each.event_time_ms)
    assert len(found) == len({each.transaction_id for each in found}) == TRANSACTIONS
    assert all(0 <= each.score <= 1 for each in found)
    assert len({each.score for each in found}) > 10
    windows = Windows()
    for each in found:
        assert each.features == pytest.approx(each.features | windows.add(each))


def test_an_environment_that_cannot_be_made_is_an_error_that_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lock = tmp_path / "requirements.lock"
    lock.write_text("no requirement at all\n")
    with pytest.raises(DependencyUnreachable, match="--no-peers"):
        python_with(lock, lambda _: None)
