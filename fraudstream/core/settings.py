"""All settings as one frozen object: defaults, then fraudstream.toml, then the environment."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fraudstream.core.errors import SettingsError

ENVIRONMENT_PREFIX = "FRAUDSTREAM_"

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its unit in its name. An empty address means: the embedded stack of `state_dir`."""

    environment: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}\\Z")] = "local"
    state_dir: str = ".fraudstream"
    kafka_bootstrap: str = ""
    redis_url: str = ""
    mlflow_url: str = ""
    kafka_port: Port = 0
    redis_port: Port = 0
    mlflow_port: Port = 0
    feature_set: Annotated[str, Meta(min_length=1)] = "nine"
    """The set that a new environment begins with: the name of a packaged one, or the path of a file."""
    partitions: Annotated[int, Meta(ge=1, le=512)] = 8
    batch_max_records: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    batch_max_wait_ms: Annotated[int, Meta(ge=0, le=1_000)] = 2
    session_timeout_ms: Annotated[int, Meta(ge=6_000, le=300_000)] = 6_000
    transaction_timeout_ms: Annotated[int, Meta(ge=1_000, le=60_000)] = 4_000
    connect_timeout_ms: Annotated[int, Meta(ge=100, le=30_000)] = 20_000
    request_timeout_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    model_poll_ms: Positive = 1_000
    score_deadline_ms: Positive = 10_000
    max_event_ahead_days: Positive = 366
    poison_in_a_row: Positive = 10
    web_host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
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
    known = set(Settings.__struct_fields__)
    if strangers := sorted(values.keys() - known):
        raise SettingsError(
            f"fraudstream.toml: {', '.join(strangers)} is no setting; known: {', '.join(sorted(known))}"
        )
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
        SettingsError: an unknown name, a wrong type, a value out of range or no address.
    """
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as exc:
        found = re.search(r"`\$\.(\w+)`", str(exc))
        field = found.group(1) if found else "settings"
        reason = re.sub(r" - at `.*`$", "", str(exc))
        raise SettingsError(f"setting {field} = {values.get(field)!r}: {reason}") from exc
    for server in filter(None, settings.kafka_bootstrap.split(",")):
        _check_address("kafka_bootstrap", f"kafka://{server.strip()}", ("kafka",))
    if settings.redis_url and not settings.redis_url.startswith("unix://"):
        _check_address("redis_url", settings.redis_url, ("redis", "rediss"))
    if settings.mlflow_url:
        _check_address("mlflow_url", settings.mlflow_url, ("http", "https"))
    _check_together(settings)
    return settings


def as_variables(settings: Settings) -> dict[str, str]:
    """Return every setting as its FRAUDSTREAM_* variable: `load_settings` makes the same of them again.

    Whatever fraudstream.toml says, since all are there. What has a password stays off a command line so.
    """
    return {
        ENVIRONMENT_PREFIX + name.upper(): str(getattr(settings, name))
        for name in settings.__struct_fields__
    }


def _check_together(settings: Settings) -> None:
    """Raise SettingsError where two settings, each allowed, contradict each other."""
    below = (
        (
            "transaction_timeout_ms",
            "session_timeout_ms",
            "who takes over would wait for what is open",
        ),
        ("batch_max_wait_ms", "score_deadline_ms", "every score would be stale"),
    )
    for lower, upper, why in below:
        low, high = getattr(settings, lower), getattr(settings, upper)
        if low >= high:
            raise SettingsError(
                f"setting {lower} = {low} must be below {upper} = {high}: else {why}"
            )
    ports = ("kafka_port", "redis_port", "mlflow_port", "web_port")
    used = [(name, port) for name in ports if (port := getattr(settings, name))]
    for name, port in used:
        others = [other for other, same in used if same == port and other != name]
        if others:
            raise SettingsError(f"setting {name} = {port} is also {others[0]}: give each its own")


_FORMS = {
    "kafka_bootstrap": "host:port,host:port",
    "redis_url": "redis://host:port/0",
    "mlflow_url": "http://host:port",
}


def _check_address(field: str, url: str, schemes: tuple[str, ...]) -> None:
    """Raise SettingsError unless `url` has one of the schemes, a host and no impossible port."""
    try:
        parts = urlsplit(url)
        wrong = ""
        if parts.scheme not in schemes:
            wrong = f"it does not begin with {schemes[0]}://"
        elif not parts.hostname:
            wrong = "it names no host"
        elif parts.scheme == "kafka" and parts.path:
            wrong = "it is no host:port"
        elif parts.port == 0:
            wrong = "port 0 is no port of a server"
    except ValueError as exc:
        wrong = str(exc)
    if wrong:
        shown = re.sub(r"//.*@", "//***@", url).removeprefix("kafka://")
        raise SettingsError(f"setting {field} = {shown!r}: {wrong}; give it as {_FORMS[field]}")


def state_path(settings: Settings) -> Path:
    """Return the absolute state folder (it may not exist yet)."""
    return Path(settings.state_dir).absolute()


def snapshot_folder(settings: Settings) -> Path:
    """Return where snapshots of the environment's features lie (it may not exist yet)."""
    return state_path(settings) / "snapshots" / settings.environment
