"""The demo's own arithmetic: the live loss ledger, when to retrain, quality by period, who may be killed."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.errors import SettingsError
from fraudstream.core.evaluation import share
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.settings import make_settings
from tests.demo_pictures import moving
from verify.demo.accounts import Accounts, Balance
from verify.demo.command import worth_a_look
from verify.demo.outage import check_own_redis
from verify.demo.periods import gain_of, period, share_of, truth_of
from verify.demo.retraining import Retraining, fallen
from verify.demo.scenarios import SCENARIOS, check_data


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12))),
    st.dictionaries(st.integers(0, 2), st.integers(0, 14)),
)
def test_the_live_ledger_counts_what_is_missing_and_what_is_doubled(
    results: list[tuple[int, int]], committed: dict[int, int]
) -> None:
    accounts = Accounts()
    for place in results:
        accounts.enter(*place)
    wanted = {(partition, o) for partition, stop in committed.items() for o in range(stop)}
    missing, doubled = len(wanted - set(results)), len(results) - len(set(results))
    assert accounts.balance(committed) == Balance(missing + doubled, sum(committed.values()))


def test_recall_has_fallen_only_when_chance_is_a_poor_explanation() -> None:
    assert fallen(share(60, 100), share(35, 100))
    assert not fallen(share(60, 100), share(52, 100)), "within chance"
    assert not fallen(share(60, 100), share(5, 20)), "too few frauds to tell"
    assert not fallen(share(60, 100), share(90, 100)), "it has risen"
    assert not fallen(share(0, 0), share(5, 100)), "nothing was promised"
    assert not fallen(share(100, 100), share(100, 100))


def test_a_retraining_is_due_one_label_delay_after_the_alarm_and_again_after_a_refusal() -> None:
    retraining = Retraining(share(60, 100), label_delay_ms=7 * DAY_MS)
    low = share(20, 100)
    assert not retraining.is_due(0)
    assert not retraining.look(share(58, 100), 10 * DAY_MS)
    assert retraining.look(low, 20 * DAY_MS)
    assert not retraining.look(low, 21 * DAY_MS), "the alarm is raised once"
    assert not retraining.is_due(27 * DAY_MS - 1)
    assert retraining.is_due(27 * DAY_MS)
    assert not retraining.is_due(28 * DAY_MS), "it runs already"
    retraining.again(28 * DAY_MS)
    assert not retraining.is_due(30 * DAY_MS - 1)
    assert retraining.is_due(30 * DAY_MS)


def table() -> pa.Table:
    """Return six transactions: two frauds of one shell, one takeover, three genuine."""
    return pa.table(
        {
            "transaction_id": list("abcdef"),
            "event_time_ms": [1, 2, 3, 4, 5, 6],
            "is_fraud": [True, True, True, False, False, False],
            "amount_minor": [100, 100, 800, 50, 50, 50],
            "customer": ["c1", "c2", "c3", "c4", "c5", "c6"],
            "terminal": ["s", "s", "t", "t", "t", "t"],
            "behaviour": ["shell_merchant", "shell_merchant", "takeover", None, "holiday", None],
        }
    )


def test_a_period_counts_what_was_alerted_of_what_was_fraud() -> None:
    truth = truth_of(table())
    alerted = np.array([True, True, False, True, False, False])
    found = period("live", truth, np.ones(6, bool), alerted, ("1",))
    assert (found.frauds, found.transactions) == (3, 6)
    assert (found.recall.hits, found.recall.total) == (2, 3)
    assert (found.precision.hits, found.precision.total) == (2, 3)
    assert found.amount_recall == 0.2
    assert (found.from_ms, found.to_ms) == (1, 6)
    part = period("late", truth, np.arange(6) >= 2, alerted, ("1",))
    assert (part.recall.hits, part.recall.total) == (0, 1)


def test_frauds_of_one_incident_count_as_one_in_the_interval() -> None:
    truth = truth_of(table())
    assert truth.incident[0] == truth.incident[1]
    assert len(set(truth.incident[2:].tolist())) == 4
    hits, of = np.arange(400) < 200, np.ones(400, bool)
    single = share_of(hits, of, np.arange(400))
    clustered = share_of(hits, of, np.arange(400) // 50)
    assert single.low is not None
    assert single.high is not None
    assert clustered.low is not None
    assert clustered.high is not None
    assert single.high - single.low < 0.12
    assert clustered.high - clustered.low > 0.4
    assert share_of(hits, np.zeros(400, bool), np.arange(400)).value is None


def test_the_gain_is_paired_by_incident() -> None:
    alone = np.arange(400) % 2 == 0
    found = alone | (np.arange(400) % 4 == 1)
    gain = gain_of(found, alone, np.arange(400))
    assert (gain.recall_without, gain.gain) == (0.5, 0.25)
    assert 0.15 < gain.gain_low < 0.25 < gain.gain_high < 0.35
    assert gain_of(alone, alone, np.arange(400)).gain_high == 0


def test_scenarios_that_need_generated_fraud_refuse_a_file() -> None:
    for name in ("drift", "attack"):
        with pytest.raises(SettingsError, match=f"--scenario {name} adds fraud"):
            check_data(SCENARIOS[name])
    check_data(SCENARIOS["quiet"])
    check_data(SCENARIOS["outage"])


def test_the_outage_does_not_kill_a_redis_of_the_user() -> None:
    check_own_redis(make_settings({}))
    with pytest.raises(SettingsError, match="redis_url names a server of yours"):
        check_own_redis(make_settings({"redis_url": "redis://127.0.0.1:6379/0"}))


def test_at_the_end_the_newest_alert_is_what_to_trace() -> None:
    alerts = moving(3).last_alerts
    assert worth_a_look(alerts)[-1] == f"trace {alerts[-1].alert_id}"
    assert alerts[-1].event_time_ms > alerts[0].event_time_ms
    assert worth_a_look([]) == ["alerts tail --from-beginning"]
