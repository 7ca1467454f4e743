"""MLflow's model registry over its REST interface, without importing mlflow (4 s)."""

from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from fraudstream.clients.inference import check_digest
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.model import ModelVersion

MODEL_FILE = "model.onnx"
_API = "/api/2.0/mlflow"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts/"
_PROXY_SCHEME = "mlflow-artifacts:"
_PAGE = 200
_SERVER_ERROR = 500
"""From this status on the server itself is at fault: its database is away, its disk is full."""

_T = TypeVar("_T")


class _Error(msgspec.Struct):
    error_code: str = ""
    message: str = ""


class _Tag(msgspec.Struct):
    key: str
    value: str = ""


class _Version(msgspec.Struct):
    name: str
    version: str
    creation_timestamp: int = 0
    description: str = ""
    tags: list[_Tag] = []
    aliases: list[str] = []


class _Alias(msgspec.Struct):
    alias: str
    version: str


class _Registered(msgspec.Struct):
    aliases: list[_Alias] = []


class _Answer(msgspec.Struct):
    model_version: _Version | None = None
    model_versions: list[_Version] = []
    registered_model: _Registered | None = None
    next_page_token: str = ""
    artifact_uri: str = ""


class ModelRegistry:
    """The registry at `url`; one connection is kept alive. Safe to share between threads.

    Every method raises DependencyUnreachable when MLflow does not answer in time, naming its address.
    """

    def __init__(
        self, url: str, *, connect_timeout_ms: int, request_timeout_ms: int = 5_000
    ) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(
                connect=connect_timeout_ms / 1000, read=request_timeout_ms / 1000
            ),
            retries=urllib3.Retry(connect=0, read=1, redirect=2, status=0, allowed_methods=None),
        )

    def alias(self, model_name: str, alias: str) -> ModelVersion | None:
        """Return the version that `alias` points at; None when model or alias do not exist."""
        answer = self._ask("GET", "/registered-models/alias", name=model_name, alias=alias)
        return _public(answer.model_version) if answer and answer.model_version else None

    def version(self, model_name: str, version: str) -> ModelVersion | None:
        """Return one version with its aliases; None when it does not exist."""
        answer = self._ask("GET", "/model-versions/get", name=model_name, version=version)
        return _public(answer.model_version) if answer and answer.model_version else None

    def versions(self, model_name: str) -> list[ModelVersion]:
        """Return all versions with their aliases, newest first; none when the model does not exist."""
        aliases = self._aliases(model_name)
        found: list[_Version] = []
        token = ""
        while True:
            answer = self._ask(
                "GET",
                "/model-versions/search",
                filter="name='" + model_name.replace("'", "") + "'",
                max_results=str(_PAGE),
                page_token=token,
            )
            found += answer.model_versions if answer else []
            token = answer.next_page_token if answer else ""
            if not token:
                break
        newest_first = sorted(found, key=lambda version: -int(version.version))
        return [_public(version, aliases.get(version.version)) for version in newest_first]

    def fetch(self, version: ModelVersion) -> bytes:
        """Return the ONNX file of `version`, through MLflow's artifact proxy.

        Raises:
            Refused: the file's SHA-256 is not the one in the version's tags, or there is none.
        """
        if not version.sha256:
            raise Refused(
                f"version {version.version} of {version.name} has no tag sha256: it was not published "
                "by fraudstream; publish one with `fraudstream train`"
            )
        onnx_bytes = self._get(self.file_url(version))
        try:
            check_digest(onnx_bytes, version.sha256)
        except Refused as exc:
            raise Refused(
                f"version {version.version} of {version.name} is not used: {exc}"
            ) from exc
        return onnx_bytes

    def set_alias(self, model_name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`. MLflow has no compare-and-set: only trainer.promote calls this."""
        body = {"name": model_name, "alias": alias, "version": version}
        if self._ask("POST", "/registered-models/alias", **body) is None:
            raise FraudstreamError(
                f"version {version} of {model_name} does not exist at {self._url}: "
                "look with `fraudstream models list`"
            )

    def set_tag(self, model_name: str, version: str, *, key: str, value: str) -> None:
        """Set one tag of a version."""
        body = {"name": model_name, "version": version, "key": key, "value": value}
        self._ask("POST", "/model-versions/set-tag", **body)

    def _aliases(self, model_name: str) -> dict[str, list[str]]:
        answer = self._ask("GET", "/registered-models/get", name=model_name)
        by_version: dict[str, list[str]] = {}
        if answer and answer.registered_model:
            for entry in answer.registered_model.aliases:
                by_version.setdefault(entry.version, []).append(entry.alias)
        return by_version

    def file_url(self, version: ModelVersion) -> str:
        """Return where the ONNX file of `version` lies, behind MLflow's artifact proxy.

        Raises:
            Refused: it lies elsewhere.
        """
        answer = self._ask(
            "GET", "/model-versions/get-download-uri", name=version.name, version=version.version
        )
        uri = answer.artifact_uri if answer else ""
        if not uri.startswith(_PROXY_SCHEME):
            raise Refused(
                f"version {version.version} of {version.name} lies at {uri!r}, not behind MLflow's "
                "artifact proxy: start the server with --serve-artifacts"
            )
        path = uri.removeprefix(_PROXY_SCHEME)
        if path.startswith("//"):
            path = path[2:].partition("/")[2]
        return f"{self._url}{_PROXY}{quote(path.strip('/'))}/{MODEL_FILE}"

    def _ask(self, method: Literal["GET", "POST"], path: str, **fields: str) -> _Answer | None:
        """Return the decoded answer; None when MLflow says that the thing asked for does not exist."""
        url = f"{self._url}{_API}{path}"
        if method == "GET":
            response = self._send("GET", f"{url}?{urlencode(fields)}")
        else:
            response = self._send("POST", url, json=fields)
        if response.status == 200:
            return self._decoded(response, _Answer)
        error = self._decoded(response, _Error)
        if _says_absent(error):
            return None
        raise self._failed(response.status, error.message)

    def _get(self, url: str) -> bytes:
        response = self._send("GET", url)
        if response.status != 200:
            raise self._failed(response.status, f"cannot fetch {url}")
        return response.data

    def _send(
        self, method: str, url: str, json: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(method, url, json=json)
        except urllib3.exceptions.HTTPError as exc:
            raise DependencyUnreachable(
                f"MLflow at {self._url} does not answer ({_innermost(exc)}): start it with "
                "`fraudstream stack up`, or set FRAUDSTREAM_MLFLOW_URL to a server that runs"
            ) from exc

    def _decoded(self, response: urllib3.BaseHTTPResponse, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(response.data, type=kind)
        except msgspec.DecodeError as exc:
            raise self._failed(
                response.status, "no JSON of MLflow's; is the address right?"
            ) from exc

    def _failed(self, status: int, message: str) -> FraudstreamError:
        said = (
            f"MLflow at {self._url} answered {status}: {message.splitlines()[0] if message else ''}"
        )
        if status >= _SERVER_ERROR:
            return DependencyUnreachable(f"{said}; is its database away? See the server's log")
        return FraudstreamError(said)


def _says_absent(error: _Error) -> bool:
    """Tell; a missing alias is an INVALID_PARAMETER_VALUE whose message names the alias."""
    missing_alias = error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in error.message
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        missing_alias and "not found" in error.message
    )


def _innermost(exc: urllib3.exceptions.HTTPError) -> object:
    return getattr(exc, "reason", None) or exc


def _public(found: _Version, aliases: list[str] | None = None) -> ModelVersion:
    tags = {tag.key: tag.value for tag in found.tags}
    return ModelVersion(
        name=found.name,
        version=found.version,
        sha256=tags.get("sha256", ""),
        feature_set=tags.get("feature_set", ""),
        threshold=_number(tags.get("threshold")),
        average_precision=_number(tags.get("average_precision")),
        created_at_ms=found.creation_timestamp,
        description=found.description,
        aliases=tuple(sorted(aliases if aliases is not None else found.aliases)),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
