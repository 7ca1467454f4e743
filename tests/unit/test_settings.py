"""Settings: defaults, then the file, then the environment, then --set; a mistake is named."""

import msgspec
import pytest

from fraudstream.core.errors import SettingsError
from fraudstream.core.settings import Settings, load_settings, make_settings, state_path


def test_the_later_source_goes_before_the_earlier() -> None:
    toml = 'environment = "file"\npartitions = 1\nbatch_max_records = 7'
    environment = {"FRAUDSTREAM_PARTITIONS": "2", "FRAUDSTREAM_BATCH_MAX_RECORDS": "8", "HOME": "x"}
    settings = load_settings(toml, environment, ["batch_max_records=9"])
    assert (settings.environment, settings.partitions, settings.batch_max_records) == ("file", 2, 9)
    assert settings.model_poll_ms == Settings().model_poll_ms


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


def test_an_unknown_variable_is_refused_with_the_known_names() -> None:
    with pytest.raises(SettingsError, match=r"FRAUDSTREAM_PARTITION is no setting.*partitions"):
        load_settings("", {"FRAUDSTREAM_PARTITION": "2"})


def test_an_unknown_name_in_the_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="partition"):
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
