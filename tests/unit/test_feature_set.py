"""Feature set files: what is read, what is refused and how, what the hash covers, how sets differ."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from fraudstream.clients.feature_library import build_library
from fraudstream.clients.feature_set_files import load_feature_set
from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_diff import definition_text, differences, mismatch
from fraudstream.core.feature_kinds import AGGREGATES, DAY_MS, PROFILES, explain
from fraudstream.core.feature_set import MOST_FEATURES, NINE, packaged, parse
from fraudstream.stack.feature_commands import features
from tests.feature_set_samples import EVERYTHING, EVERYTHING_TOML

COUNT = '{ entity = "customer", window = "1d", aggregate = "count" }'


def test_a_window_or_an_aggregate_is_one_line() -> None:
    made = parse(f"[features]\ncustomer_count_1d = {COUNT}", "mine.toml", "mine")
    (feature,) = made.definitions
    assert made.features == ("customer_count_1d",)
    assert (feature.kind, feature.entity, feature.window_ms) == ("count", "customer", DAY_MS)
    assert made.retention_ms("customer") == DAY_MS + made.lateness_ms


def test_the_nine_are_what_they_were() -> None:
    assert (NINE.customer_retention_ms, NINE.terminal_retention_ms) == (21 * DAY_MS, 67 * DAY_MS)
    assert (NINE.prior_sum_minor, NINE.clean_max_ratio, NINE.none_days) == (5_300, 2.5, 99.0)
    assert len(NINE.features) == 9


def test_every_kind_is_in_the_sample_and_explained() -> None:
    assert {each.kind for each in EVERYTHING.definitions} == AGGREGATES.keys() | PROFILES.keys()
    for each in EVERYTHING.definitions:
        assert "{" not in explain(each)


WRONG = [
    ("x 1\n", "is no TOML: .*line 1"),
    ("", "features has 0 entries: 1 to"),
    ("[feature]", "table feature .* is unknown: allowed are parameters, features"),
    ("features = 3", "features is 3: a table"),
    ("[features]\na = 3", r"features\.a is 3: a table"),
    ("[features]\na = {}", r"features\.a needs either aggregate \(count, .*\) or profile \(amount"),
    (f"[features]\n1a = {COUNT}", r"features\.1a: a name has small letters"),
    (
        '[features]\na = { entity = "customer", window = "1d", aggregate = "median" }',
        r"features\.a\.aggregate is 'median': allowed are count, sum",
    ),
    (
        '[features]\na = { entity = "customer", window = "1 day", aggregate = "count" }',
        r"features\.a\.window is '1 day': .*14d",
    ),
    (
        '[features]\na = { entity = "customer", window = "2000d", aggregate = "count" }',
        r"features\.a\.window is '2000d': .*at most 1000d",
    ),
    (
        '[features]\na = { entity = "customer", window = 5, aggregate = "count" }',
        r"features\.a\.window is 5",
    ),
    (
        '[features]\na = { entity = "shop", window = "1d", aggregate = "count" }',
        r"features\.a\.entity is 'shop': allowed are customer, terminal",
    ),
    (
        '[features]\na = { entity = "terminal", profile = "ratio" }',
        r"features\.a\.entity is 'terminal': allowed are customer",
    ),
    (
        '[features]\na = { entity = "customer", aggregate = "count" }',
        r"features\.a\.window is missing: count needs aggregate, entity, window",
    ),
    (
        '[features]\na = { profile = "amount", window = "1d" }',
        r"features\.a: field window \(= '1d'\) is unknown: allowed are profile",
    ),
    (
        '[features]\na = { entity = "customer", window = "1d", aggregate = "distinct", of = "customer" }',
        r"features\.a\.of is 'customer': allowed are terminal",
    ),
    (
        '[parameters]\nhot = 3.0\n[features]\na = { profile = "amount" }',
        r"parameter hot \(= 3\.0\) is unknown: allowed are minor_per_major, .*label_delay,",
    ),
    (
        '[parameters]\nhot_ratio = "3"\n[features]\na = { profile = "amount" }',
        r"parameters\.hot_ratio is '3': a finite number",
    ),
    (
        '[parameters]\nhot_ratio = nan\n[features]\na = { profile = "amount" }',
        r"parameters\.hot_ratio is nan",
    ),
    (
        '[parameters]\nminor_per_major = 0\n[features]\na = { profile = "amount" }',
        r"parameters\.minor_per_major is 0: a whole number from 1",
    ),
    (
        '[parameters]\nminor_per_major = true\n[features]\na = { profile = "amount" }',
        r"parameters\.minor_per_major is True",
    ),
    (
        '[parameters]\nlateness = 7\n[features]\na = { profile = "amount" }',
        r"parameters\.lateness is 7: a whole number with d",
    ),
    (
        "[features]\n" + "\n".join(f"a{i} = {COUNT}" for i in range(MOST_FEATURES + 1)),
        f"features has {MOST_FEATURES + 1} entries",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_refused_with_field_value_and_what_is_allowed(
    text: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=f"mine.toml.*{message}"):
        parse(text, "mine.toml", "mine")


def test_the_hash_covers_what_changes_a_value_and_nothing_else() -> None:
    written_otherwise = EVERYTHING_TOML.replace('"1d"', '"24h"').replace(
        "[features]", "[features] # x"
    )
    assert parse(written_otherwise, "other.toml", "other").hash == EVERYTHING.hash
    unread = msgspec.structs.replace(packaged()["windows"], hot_ratio=9.0)
    assert unread.hash == packaged()["windows"].hash
    swapped = msgspec.structs.replace(NINE, definitions=NINE.definitions[::-1])
    renamed = msgspec.structs.replace(
        NINE,
        definitions=(
            msgspec.structs.replace(NINE.definitions[0], name="price"),
            *NINE.definitions[1:],
        ),
    )
    others = [swapped, renamed, msgspec.structs.replace(NINE, label_delay_ms=8 * DAY_MS)]
    assert len({each.hash for each in (NINE, *others)}) == 4


def test_each_set_has_a_library_of_its_own() -> None:
    made = [build_library(each) for each in (*packaged().values(), EVERYTHING)]
    assert len({each.id for each in made}) == len(made)
    assert [each.width for each in made] == [9, 6, len(EVERYTHING.features)]


def test_differences_name_parameters_features_and_order() -> None:
    later = msgspec.structs.replace(NINE, label_delay_ms=8 * DAY_MS)
    assert [str(each) for each in differences(NINE, later)] == ["parameter label_delay: 7d -> 8d"]
    assert differences(NINE, NINE) == []
    first, second, *rest = NINE.definitions
    swapped = msgspec.structs.replace(NINE, definitions=(second, first, *rest))
    (moved,) = differences(NINE, swapped)
    assert (moved.what, moved.second.partition(", ")[0]) == ("order", "amount_ratio")
    shorter = msgspec.structs.replace(
        NINE, definitions=(msgspec.structs.replace(first, name="price"), second, *rest)
    )
    assert [each.name for each in differences(NINE, shorter)] == ["amount", "price"]


def test_a_mismatch_with_a_model_says_what_differs() -> None:
    windows = packaged()["windows"]
    assert "parameter hot_ratio: 3 -> 4" in mismatch(
        NINE.hash, NINE.features, msgspec.structs.replace(NINE, hot_ratio=4.0)
    )
    unknown = mismatch("0" * 16, windows.features[:5], windows)
    assert unknown == "feature customer_sum_30d: none -> present"
    assert "parameters or windows differ" in mismatch("0" * 16, windows.features, windows)


def test_a_set_is_found_by_name_or_by_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"[features]\na = {COUNT}")
    assert load_feature_set(str(file)).name == "mine"
    assert load_feature_set("nine") == NINE
    with pytest.raises(SettingsError, match=r"'none' cannot be read: .*nine, windows"):
        load_feature_set("none")


def run(*words: str) -> str:
    done = CliRunner().invoke(features, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_list_explain_and_compare() -> None:
    assert NINE.hash in run("list")
    listed = msgspec.json.decode(run("list", "--json", "-"))
    assert [each["name"] for each in listed] == ["nine", "windows"]
    shown = run("explain", "max_ratio_14d")
    assert "largest ratio in the customer's last 14d before this one" in shown
    assert "clean_warm_up = 3" in shown
    explained = msgspec.json.decode(run("explain", "nine", "--json", "-"))
    assert [each["name"] for each in explained] == list(NINE.features)
    assert "customer_sum" in run("explain", "windows", "--lua")
    both = CliRunner().invoke(features, ["explain", "nine", "--lua", "--json", "-"])
    assert (both.exit_code, "choose one" in both.output) == (2, True)
    report = msgspec.json.decode(run("diff", "nine", "windows", "--json", "-"))
    assert len(report["differences"]) == 15
    assert run("diff", "nine", "nine").count("\n") == 1


def test_a_definition_is_written_as_it_is_read() -> None:
    text = "\n".join(f"{each.name} = {definition_text(each)}" for each in EVERYTHING.definitions)
    again = parse(
        f"[parameters]\nlateness = '3d'\nlabel_delay = '5d'\n[features]\n{text}", "x", "x"
    )
    assert again.definitions == EVERYTHING.definitions
