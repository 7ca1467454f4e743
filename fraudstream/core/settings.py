"""All settings as one frozen object: defaults, then fraudstream.toml, then the environment."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fraudstream.core.errors import SettingsError

ENVIRONMENT_PREFIX = "FRAUDSTREAM_"

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its unit in its name. An empty address means: the embedded stack of `state_dir`."""

    environment: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] = "local"
    state_dir: str = ".fraudstream"
    kafka_bootstrap: str = ""
    redis_url: str = ""
    mlflow_url: str = ""
    kafka_port: Port = 0
    redis_port: Port = 0
    mlflow_port: Port = 0
    partitions: Annotated[int, Meta(ge=1, le=512)] = 8
    batch_max_records: Annotated[int, Meta(ge=1, le=10_000)] = 500
    batch_max_wait_ms: Annotated[int, Meta(ge=0, le=1_000)] = 2
    session_timeout_ms: Annotated[int, Meta(ge=6_000, le=300_000)] = 6_000
    transaction_timeout_ms: Annotated[int, Meta(ge=1_000, le=60_000)] = 4_000
    connect_timeout_ms: Annotated[int, Meta(ge=100, le=30_000)] = 20_000
    request_timeout_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    model_poll_ms: Positive = 1_000
    score_deadline_ms: Positive = 10_000
    max_event_ahead_days: Positive = 366
    web_port: Port = 0
    handbook: str = ""
    """Path of the Fraud Detection Handbook's transactions; only tests and benchmarks read it."""
    alerts_per_1000: Annotated[float, Meta(gt=0, le=1000)] = 5.0


def load_settings(
    toml_text: str, environment: Mapping[str, str], overrides: Sequence[str] = ()
) -> Settings:
    """Return the settings from a TOML document, FRAUDSTREAM_* variables and NAME=VALUE overrides.

    Raises:
        SettingsError: an unknown name, a wrong type or a value out of range.
    """
    try:
        values: dict[str, object] = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"fraudstream.toml is not valid TOML: {exc}") from exc
    known = {field.encode_name for field in msgspec.structs.fields(Settings)}
    for variable, text in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name in known:
            values[name] = text
        elif variable.startswith(ENVIRONMENT_PREFIX):
            raise SettingsError(f"{variable} is no setting; known: {', '.join(sorted(known))}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or name not in known:
            raise SettingsError(
                f"--set {override}: NAME=VALUE with a NAME of {', '.join(sorted(known))}"
            )
        values[name] = text
    return make_settings(values)


def make_settings(values: Mapping[str, object]) -> Settings:
    """Return settings made from `values`, numbers given as text included.

    Raises:
        SettingsError: an unknown name, a wrong type or a value out of range.
    """
    try:
        return msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as exc:
        found = re.search(r"`\$\.(\w+)`", str(exc))
        field = found.group(1) if found else "settings"
        reason = re.sub(r" - at `.*`$", "", str(exc))
        raise SettingsError(f"setting {field} = {values.get(field)!r}: {reason}") from exc


def state_path(settings: Settings) -> Path:
    """Return the absolute state folder (it may not exist yet)."""
    return Path(settings.state_dir).absolute()
