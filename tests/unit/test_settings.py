"""Settings: defaults, then the file, then the environment, then --set; a mistake is named."""

import msgspec
import pytest

from fraudstream.core.errors import SettingsError
from fraudstream.core.settings import (
    Settings,
    as_variables,
    load_settings,
    make_settings,
    state_path,
)


def test_the_later_source_goes_before_the_earlier() -> None:
    toml = 'environment = "file"\npartitions = 1\nbatch_max_records = 7'
    environment = {"FRAUDSTREAM_PARTITIONS": "2", "FRAUDSTREAM_BATCH_MAX_RECORDS": "8", "HOME": "x"}
    settings = load_settings(toml, environment, ["batch_max_records=9"])
    assert (settings.environment, settings.partitions, settings.batch_max_records) == ("file", 2, 9)
    assert settings.model_poll_ms == Settings().model_poll_ms


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(redis_url="redis://:pass@features:6379/1", partitions=3, alerts_per_1000=2.5),
    ],
)
def test_settings_as_variables_are_the_same_settings_whatever_the_file_says(
    settings: Settings,
) -> None:
    toml = 'redis_url = "redis://users:6379/0"\npartitions = 1\nweb_port = 6066'
    assert load_settings(toml, as_variables(settings)) == settings


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("partitions", "0", ">= 1"),
        ("partitions", "many", "int"),
        ("kafka_port", "70000", "<= 65535"),
        ("environment", "Prod!", "regex"),
        ("alerts_per_1000", "0", "> 0"),
    ],
)
def test_a_wrong_value_names_field_value_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings({name: value})
    message = str(caught.value)
    assert name in message
    assert value in message
    assert allowed in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("kafka_bootstrap", "broker:99999", "0-65535"),
        ("kafka_bootstrap", "broker:9092,broker:port", "host:port"),
        ("kafka_bootstrap", ":9092", "no host"),
        ("kafka_bootstrap", "http://broker:9092", "no host:port"),
        ("redis_url", "redis://features:99999/0", "0-65535"),
        ("redis_url", "features:6379", "redis://host:port/0"),
        ("redis_url", "redis://:6379", "no host"),
        ("mlflow_url", "mlflow:5000", "http://host:port"),
        ("mlflow_url", "http://mlflow:port", "http://host:port"),
        ("mlflow_url", "http://mlflow:0", "port 0"),
        ("environment", "prod\n", "regex"),
    ],
)
def test_what_is_no_address_is_answered_with_one_that_is(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"setting {name} = ") as caught:
        make_settings({name: value})
    assert says in str(caught.value)


def test_a_wrong_address_does_not_show_its_password() -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings({"redis_url": "redis://me:pass@word@features:99999/0"})
    assert "word" not in str(caught.value)
    assert "features" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka_bootstrap", "a:9092, b:9092,c"),
        ("kafka_bootstrap", "[::1]:9092"),
        ("redis_url", "unix:///run/valkey.sock?db=1"),
        ("redis_url", "rediss://me:secret@features:6380/2"),
        ("mlflow_url", "https://mlflow.example/prefix"),
    ],
)
def test_addresses_of_every_usual_form_are_taken(name: str, value: str) -> None:
    assert getattr(make_settings({name: value}), name) == value


def test_an_unknown_variable_is_refused_with_the_known_names() -> None:
    with pytest.raises(SettingsError, match=r"FRAUDSTREAM_PARTITION is no setting.*partitions"):
        load_settings("", {"FRAUDSTREAM_PARTITION": "2"})


def test_an_unknown_name_in_the_file_is_refused_with_the_known_names() -> None:
    with pytest.raises(SettingsError, match=r"toml: partition is no setting; known: .*partitions"):
        load_settings("partition = 2", {})


@pytest.mark.parametrize("override", ["partitions", "partition=2", "=2"])
def test_an_override_without_a_known_name_is_refused(override: str) -> None:
    with pytest.raises(SettingsError, match=f"--set {override}"):
        load_settings("", {}, [override])


def test_broken_toml_says_where() -> None:
    with pytest.raises(SettingsError, match=r"not valid TOML.*line 2"):
        load_settings("partitions = 2\npartitions = = 3", {})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().partitions = 3  # type: ignore[misc]
    assert msgspec.structs.replace(Settings(), partitions=3).partitions == 3


def test_the_state_folder_is_absolute() -> None:
    assert state_path(Settings()).is_absolute()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"transaction_timeout_ms": 6_000}, ("transaction_timeout_ms", "session_timeout_ms")),
        (
            {"batch_max_wait_ms": 500, "score_deadline_ms": 500},
            ("batch_max_wait_ms", "score_deadline_ms"),
        ),
        ({"kafka_port": 9_092, "mlflow_port": 9_092}, ("kafka_port", "mlflow_port")),
    ],
)
def test_settings_that_contradict_each_other_are_both_named(
    values: dict[str, object], names: tuple[str, str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings(values)
    assert all(name in str(caught.value) for name in names)
    assert make_settings({"transaction_timeout_ms": 6_000, "session_timeout_ms": 6_001})
