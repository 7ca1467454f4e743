"""The generator: same seed, same bytes; every behaviour present; truth that is consistent."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudstream.core.errors import Refused, SettingsError
from fraudstream.core.evaluation import average_precision
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import decode_transaction, encode
from producer.commands import generate as generate_command
from producer.generator import (
    Simulation,
    generate,
    identity,
    make_parameters,
    simulate,
    write_table,
)
from producer.generator.intervals import latest_interval
from producer.generator.rows import FRAUDS, LOOK_ALIKES, NEW_FRAUDS, NEW_LOOK_ALIKES
from producer.generator.simulate import ATTRIBUTES
from producer.sources import canonical_schema, event_times, in_canonical_order, read_source, records

SMALL: dict[str, object] = {"customers": 200, "terminals": 120, "days": 20}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(make_parameters({}))


@pytest.fixture(scope="module")
def table(simulation: Simulation) -> pa.Table:
    return simulation.table


def check_invariants(table: pa.Table) -> None:
    """What holds for every generated table, whatever its parameters."""
    assert table.schema.equals(canonical_schema(ATTRIBUTES))
    assert in_canonical_order(table) is table
    assert pc.count_distinct(table["transaction_id"]).as_py() == table.num_rows
    assert all(table[name].null_count == 0 for name in table.column_names if "label" not in name)
    assert pc.min(table["amount_minor"]).as_py() >= 50
    fraud = table.filter(pc.field("is_fraud"))
    honest = table.filter(~pc.field("is_fraud"))
    assert honest["labelled_at_ms"].null_count == honest.num_rows
    assert set(fraud["behaviour"].to_pylist()) <= {*FRAUDS, *NEW_FRAUDS}
    assert set(honest["behaviour"].to_pylist()) <= {"", *LOOK_ALIKES, *NEW_LOOK_ALIKES}
    reported = fraud.filter(pc.is_valid(fraud["labelled_at_ms"]))
    delay = np.asarray(pc.subtract(reported["labelled_at_ms"], reported["event_time_ms"]))
    assert np.all((delay > 0) & (delay <= 31 * DAY_MS))


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, ending: str
) -> None:
    digests = []
    for place, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{place}.{ending}"
        write_table(generate(make_parameters(SMALL | {"seed": seed})), path)
        digests.append(file_digest(path))
    assert digests[0] == digests[1] != digests[2]


def test_a_default_stream_keeps_the_invariants_and_the_fraud_rate(table: pa.Table) -> None:
    check_invariants(table)
    assert 0.0045 <= np.asarray(table["is_fraud"]).mean() <= 0.0055


def test_the_fraud_rate_stays_level_over_the_days(table: pa.Table) -> None:
    times = event_times(table)
    fraud = np.asarray(table["is_fraud"])
    weeks = (times - times[0]) // (12 * DAY_MS)
    rates = [fraud[weeks == week].mean() for week in range(5)]
    assert all(0.003 <= rate <= 0.008 for rate in rates)


def test_every_behaviour_and_every_look_alike_is_present(table: pa.Table) -> None:
    assert set(table["behaviour"].to_pylist()) == {"", *FRAUDS, *LOOK_ALIKES}


def test_about_a_tenth_of_fraud_is_never_reported_and_some_takes_weeks(table: pa.Table) -> None:
    fraud = table.filter(pc.field("is_fraud"))
    assert 0.05 <= fraud["labelled_at_ms"].null_count / fraud.num_rows <= 0.15
    delay = pc.subtract(fraud["labelled_at_ms"], fraud["event_time_ms"]).drop_null()
    days = np.asarray(delay) / DAY_MS
    assert 0.8 <= np.mean(days <= 7) <= 0.97
    assert days.max() > 20


def test_the_amount_alone_is_a_poor_detector_and_the_hidden_state_a_good_one(
    simulation: Simulation,
) -> None:
    fraud = np.asarray(simulation.table["is_fraud"])
    amount = np.asarray(simulation.table["amount_minor"]).astype(np.float64)
    assert average_precision(fraud, amount) <= 0.30
    assert 0.85 <= average_precision(fraud, simulation.odds) <= 0.99


def test_the_true_odds_add_up_to_the_frauds(simulation: Simulation) -> None:
    frauds = pc.sum(simulation.table["is_fraud"]).as_py()
    assert frauds is not None
    assert np.all((simulation.odds >= 0) & (simulation.odds <= 1))
    assert simulation.odds.sum() == pytest.approx(frauds, rel=0.08)


def test_travellers_and_thieves_are_far_from_home_and_others_near(table: pa.Table) -> None:
    present = table.filter(pc.field("attr_card_present") == 1)
    distance = np.asarray(present["attr_distance_km"])
    behaviour = np.array(present["behaviour"].to_pylist())
    assert np.median(distance[behaviour == ""]) < 30
    assert np.median(distance[behaviour == "holiday"]) > 100
    assert np.median(distance[behaviour == "takeover"]) > 100


def test_at_a_compromised_terminal_most_transactions_are_fraud_while_it_lasts(
    table: pa.Table,
) -> None:
    stolen = table.filter(pc.field("behaviour") == "compromised_terminal")
    ends = stolen.group_by("terminal").aggregate(
        [("event_time_ms", "min"), ("event_time_ms", "max"), ("event_time_ms", "count")]
    )
    span_days = pc.subtract(ends["event_time_ms_max"], ends["event_time_ms_min"])
    assert pc.max(span_days).as_py() <= 34 * DAY_MS
    joined = table.join(ends, "terminal", join_type="inner")
    inside = joined.filter(
        (pc.field("event_time_ms") >= pc.field("event_time_ms_min"))
        & (pc.field("event_time_ms") <= pc.field("event_time_ms_max"))
    )
    assert stolen.num_rows / inside.num_rows > 0.7


def test_records_hold_the_attributes_and_none_of_the_truth(table: pa.Table) -> None:
    for transaction in records(table, 0, 200):
        assert decode_transaction(encode(transaction)) == transaction
        assert set(transaction.attributes) == set(ATTRIBUTES)
        assert not {b"is_fraud", b"behaviour", b"labelled_at_ms"} & set(
            encode(transaction).split(b'"')
        )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    customers=st.integers(50, 400),
    terminals=st.integers(50, 300),
    days=st.integers(7, 30),
    fraud_rate=st.floats(0.0005, 0.05),
)
def test_any_seed_and_size_keep_the_invariants(**parameters: object) -> None:
    made = make_parameters(parameters | {"per_customer_day": 3.0})
    simulation = simulate(made)
    check_invariants(simulation.table)
    times = event_times(simulation.table)
    assert times[-1] - times[0] < made.days * DAY_MS
    assert len(simulation.odds) == simulation.table.num_rows


def test_the_invariants_reject_a_label_on_an_honest_transaction(table: pa.Table) -> None:
    place = table.schema.get_field_index("labelled_at_ms")
    labelled = table.set_column(place, table.schema.field(place), table["event_time_ms"])
    with pytest.raises(AssertionError):
        check_invariants(labelled)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"days": 0}, "days = 0"),
        ({"customers": 3}, "customers = 3"),
        ({"fraud_rate": 0.9}, "fraud_rate = 0.9"),
        ({"start": "tomorrow"}, "start = 'tomorrow'"),
        ({"start": "1999-12-31"}, "use an ISO date from 2000"),
        ({"customers": 5_000_000}, "use 500 to"),
        ({"customers": 20, "days": 1}, "use 500 to"),
        ({"takeover_share": 0.9}, "must give 1"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_parameters(values)


def test_parameters_name_the_stream() -> None:
    first, second = make_parameters(SMALL), make_parameters(SMALL | {"seed": 8})
    assert identity(first) == identity(make_parameters(SMALL)) != identity(second)


def test_an_interval_holds_its_start_and_not_its_end() -> None:
    owner, start, end = (np.array(x) for x in ([5, 5, 9], [10, 100, 0], [20, 200, 50]))
    at = np.array([9, 10, 19, 20, 150, 10])
    of_owner = np.array([5, 5, 5, 5, 5, 9])
    found = latest_interval(owner, start, end, of_owner=of_owner, at_ms=at)
    assert found.tolist() == [-1, 0, 0, -1, 1, 2]


def test_both_formats_hold_the_same_table(tmp_path: Path) -> None:
    table = generate(make_parameters(SMALL))
    for name in ("t.parquet", "t.jsonl"):
        write_table(table, tmp_path / name)
        assert read_source(tmp_path / name).table.equals(table)


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("precious")
    table = generate(make_parameters(SMALL))
    with pytest.raises(Refused, match="--force"):
        write_table(table, path)
    assert path.read_text() == "precious"
    write_table(table, path, force=True)
    assert read_source(path).table.num_rows == table.num_rows
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize(
    ("name", "message"), [("t.csv", "parquet or .jsonl"), ("no/t.parquet", "not exist")]
)
def test_a_target_that_cannot_be_is_refused_before_the_work(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        write_table(canonical_schema().empty_table(), tmp_path / name)


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    def stop(_rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(generate(make_parameters(SMALL)), tmp_path / "t.parquet", advance=stop)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file_and_reports_what_is_in_it(tmp_path: Path) -> None:
    path, report = tmp_path / "t.parquet", tmp_path / "report.json"
    arguments = ["--out", str(path), "--json", str(report), "--days", "20", "--customers", "200"]
    result = CliRunner().invoke(generate_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    source = read_source(path)
    numbers = json.loads(report.read_text())
    assert numbers["transactions"] == source.table.num_rows
    assert numbers["frauds"] == pc.sum(source.table["is_fraud"]).as_py()
    assert sum(numbers["frauds_by_behaviour"].values()) == numbers["frauds"]
    assert f"{numbers['transactions']:,} transactions" in result.stdout


SMALL_DIGEST = "22acf5987f3c"
SMALL_FILE = "add2d138aeece8c86b49b8fe1a117b0795d274377936766717d0e76502a44abb"
"""SHA-256 of the stream as JSON lines, from the version before there were events."""


def test_a_stream_without_events_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    parameters = make_parameters(SMALL | {"seed": 3})
    assert parameters.digest == SMALL_DIGEST
    write_table(generate(parameters), tmp_path / "t.jsonl")
    assert file_digest(tmp_path / "t.jsonl") == SMALL_FILE


def test_what_an_event_would_be_like_names_the_stream_only_where_there_is_one() -> None:
    def digest(**values: object) -> str:
        return make_parameters(SMALL | {"seed": 3} | values).digest

    assert digest(shell_share=2.0, wave_cards=9) == SMALL_DIGEST
    wave, shells = digest(wave_day=4, wave_cards=50), digest(shells_from_day=4)
    others = digest(wave_day=4, wave_cards=9), digest(shells_from_day=4, shell_share=2.0)
    assert len({SMALL_DIGEST, wave, shells, *others}) == 5


@pytest.fixture(scope="module")
def drift() -> Simulation:
    return simulate(make_parameters({"days": 40, "shells_from_day": 25}))


@pytest.fixture(scope="module")
def drifting(drift: Simulation) -> pa.Table:
    return drift.table


def of_behaviour(table: pa.Table, name: str) -> pa.Table:
    return table.filter(pc.field("behaviour") == name)


def days_of(table: pa.Table, start: pa.Table) -> np.ndarray:
    first_ms = event_times(start)[0] // DAY_MS * DAY_MS
    days: np.ndarray = (event_times(table) - first_ms) / DAY_MS
    return days


def test_shells_come_on_their_day_bill_each_card_once_and_are_gone_within_36_hours(
    drifting: pa.Table,
) -> None:
    check_invariants(drifting)
    shells = of_behaviour(drifting, "shell_merchant")
    rest = drifting.filter(pc.field("behaviour") != "shell_merchant")
    others = rest.filter(rest["is_fraud"])
    assert days_of(shells, drifting).min() >= 25
    a_day = shells.num_rows / 15 / (others.num_rows / 40)
    assert 0.7 < a_day < 1.3
    cards = shells.group_by(["terminal", "customer"]).aggregate([([], "count_all")])
    assert pc.max(cards["count_all"]).as_py() == 1
    lives = shells.group_by("terminal").aggregate(
        [("event_time_ms", "min"), ("event_time_ms", "max"), ("amount_minor", "count_distinct")]
    )
    life = pc.subtract(lives["event_time_ms_max"], lives["event_time_ms_min"])
    assert pc.max(life).as_py() <= 1.5 * DAY_MS
    assert pc.max(lives["amount_minor_count_distinct"]).as_py() <= 2
    assert set(shells["amount_minor"].to_pylist()) <= {495, 695, 995, 1495}
    used = set(shells["terminal"].to_pylist())
    assert not used & set(rest["terminal"].to_pylist()), "terminals of their own"
    assert set(shells["attr_card_present"].to_pylist()) == {0.0}


def test_reports_of_shells_come_as_late_as_those_of_other_frauds(drifting: pa.Table) -> None:
    shells = of_behaviour(drifting, "shell_merchant")
    assert 0.05 <= shells["labelled_at_ms"].null_count / shells.num_rows <= 0.17
    delay = pc.subtract(shells["labelled_at_ms"], shells["event_time_ms"]).drop_null()
    assert 2 <= np.median(np.asarray(delay) / DAY_MS) <= 3.5


def test_new_shops_open_during_the_whole_stream_and_take_some_of_the_same_prices(
    drifting: pa.Table,
) -> None:
    shops = of_behaviour(drifting, "new_shop")
    opened = shops.group_by("terminal").aggregate([("event_time_ms", "min")])
    first_ms = event_times(drifting)[0] // DAY_MS * DAY_MS
    day = (np.asarray(opened["event_time_ms_min"]) - first_ms) / DAY_MS
    assert (np.histogram(day, bins=4, range=(0, 40))[0] >= 5).all()
    amounts = np.asarray(shops["amount_minor"])
    assert 0.15 < np.isin(amounts, (495, 695, 995, 1495)).mean() < 0.5
    assert (amounts > 3000).mean() > 0.2, "some sell at ordinary prices"
    others = drifting.filter(~pc.field("behaviour").isin(["new_shop", "shell_merchant"]))
    assert not set(opened["terminal"].to_pylist()) & set(others["terminal"].to_pylist())


def test_who_knows_the_simulator_is_sure_of_shells_and_of_new_shops(drift: Simulation) -> None:
    behaviour = np.array(drift.table["behaviour"].to_pylist())
    assert (drift.odds[behaviour == "shell_merchant"] == 1).all()
    assert (drift.odds[behaviour == "new_shop"] == 0).all()
    frauds = pc.sum(drift.table["is_fraud"]).as_py()
    assert drift.odds.sum() == pytest.approx(frauds, rel=0.1)


def test_the_wave_drains_each_of_its_cards_within_hours_of_one_day() -> None:
    calm = make_parameters({"days": 20})
    table = generate(make_parameters({"days": 20, "wave_day": 12, "wave_cards": 150}))
    check_invariants(table)
    drained = of_behaviour(table, "draining")
    days = days_of(drained, table)
    inside = drained.filter((days >= 12 + 10 / 24) & (days < 12 + 18 / 24))
    usual = of_behaviour(generate(calm), "draining").num_rows
    assert drained.num_rows - inside.num_rows <= usual + 5
    assert 150 <= pc.count_distinct(inside["customer"]).as_py() <= 150 + usual
    assert 2 * 150 <= inside.num_rows <= 5 * 150 + usual


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"shells_from_day": -1}, "shells_from_day = -1"),
        ({"shells_from_day": 20}, "shells_from_day = 20: the stream has days 0 to 19"),
        ({"wave_day": 99}, "wave_day = 99: the stream has days 0 to 19"),
        ({"wave_day": -1}, "wave_day = -1"),
        ({"wave_day": 2, "wave_cards": 201}, "wave_cards = 201: there are 200 customers"),
        ({"shell_share": 0}, "shell_share = 0"),
    ],
)
def test_events_that_cannot_be_are_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        make_parameters(SMALL | values)


def test_the_command_generates_the_events_that_its_options_name(tmp_path: Path) -> None:
    path, report = tmp_path / "t.parquet", tmp_path / "report.json"
    arguments = ["--out", str(path), "--json", str(report), "--days", "20", "--customers", "200"]
    events = ["--shells-from-day", "10", "--wave-day", "12", "--wave-cards", "50"]
    result = CliRunner().invoke(generate_command, arguments + events, catch_exceptions=False)
    assert result.exit_code == 0
    numbers = json.loads(report.read_text())
    assert numbers["frauds_by_behaviour"]["draining"] >= 2 * 50
    assert {"shell_merchant", "new_shop"} <= {
        *numbers["frauds_by_behaviour"],
        *numbers["look_alikes"],
    }
