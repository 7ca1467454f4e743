"""What the state folder says about the embedded stack: which processes, which addresses, which ports."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

import msgspec

from fraudstream.core.errors import FraudstreamError, SettingsError
from fraudstream.core.health import State
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack.locks import is_held

ServerName = Literal["kafka", "redis", "mlflow"]
SERVERS: tuple[ServerName, ...] = get_args(ServerName)
MIN_FREE_BYTES = 256 * 1024 * 1024


class Process(msgspec.Struct, frozen=True):
    """A process told from a later one with the same id by when it was started."""

    pid: int
    started: str


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the stack as it is now; `restarts` counts how often it died and was started anew.

    `silent`: it was ready once and does not answer at the moment; only whoever asked it knows.
    """

    address: str
    port: int
    pid: int = 0
    ready: bool = False
    restarts: int = 0
    silent: bool = False

    @property
    def state(self) -> State:
        """Return how the server is, in the word that services use, too."""
        if self.silent:
            return "waiting"
        return "ready" if self.ready else "starting"


class ServerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one server: all steps but the last prepare and must exit with 0, the last one is it."""

    name: ServerName
    address: str
    port: int
    steps: tuple[tuple[str, ...], ...]


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of stack.json; `error` says why a start failed."""

    supervisor: Process
    servers: dict[ServerName, Server]
    owner: Process | None = None
    error: str = ""


class StackPaths:
    """Where the stack keeps its files and folders in a state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "stack.json"
        self.ports = root / "ports.json"
        self.lock = root / "stack.lock"
        """Held by the supervisor and every server: free means that nothing of the stack lives."""
        self.start_lock = root / "start.lock"
        """Held by the one `up` that starts the stack."""
        self.data = root / "servers"
        self.temporary = self.data / "tmp"
        """Emptied at each start: the servers leave libraries and locks in it when they are killed."""
        self.logs = root / "logs"

    @classmethod
    def of(cls, settings: Settings) -> "StackPaths":
        """Return the paths in the state folder of `settings`."""
        return cls(state_path(settings))

    def log(self, name: str) -> Path:
        """Return the log file of a server or of the supervisor."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the folders.

        Raises:
            SettingsError: the state folder cannot be written, or its disk is full.
        """
        try:
            for folder in (self.temporary, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self.start_lock.touch()
        except OSError as exc:
            raise SettingsError(
                f"setting state_dir = {self.root}: cannot be written ({exc.strerror}); "
                "choose another folder with FRAUDSTREAM_STATE_DIR"
            ) from exc
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise SettingsError(
                f"setting state_dir = {self.root}: its disk has {free // 2**20} MiB free, the stack needs "
                f"{MIN_FREE_BYTES // 2**20}; free some or choose another folder with FRAUDSTREAM_STATE_DIR"
            )


def read_state(paths: StackPaths) -> StackState | None:
    """Return what stack.json says, None if there is none that can be read."""
    try:
        return msgspec.json.decode(paths.state.read_bytes(), type=StackState)
    except (OSError, msgspec.DecodeError):
        return None


def running_state(paths: StackPaths) -> StackState | None:
    """Return what stack.json says if the stack lives, else None."""
    state = read_state(paths)
    if state is None or not is_held(paths.lock) or not is_alive(state.supervisor):
        return None
    return state


def write_atomically(path: Path, content: object) -> None:
    """Write `content` as JSON, as `replace_whole` does."""
    replace_whole(path, msgspec.json.format(msgspec.json.encode(content)))


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, never a half."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def identify(pid: int) -> Process | None:
    """Return the living process `pid`, None if it is gone (a zombie is gone)."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        state, started = fields[0], fields[19]
    else:
        command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        state, _, started = found.stdout.strip().partition(" ")
    if not state or state[0] in "ZX":
        return None
    return Process(pid, started)


def is_alive(process: Process) -> bool:
    """Return whether this very process lives, not a later one with the same id."""
    return identify(process.pid) == process


def log_tail(paths: StackPaths, name: str, lines: int = 12) -> str:
    """Return the last lines of a log, indented; empty if there is none."""
    try:
        text = paths.log(name).read_text(errors="replace")
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in text.splitlines()[-lines:])


def require_supported_platform() -> None:
    """Raise unless this system can run the stack.

    Raises:
        FraudstreamError: no server wheels for this system; names what to do instead.
    """
    if sys.platform not in {"linux", "darwin"}:
        raise FraudstreamError(
            f"the embedded stack runs on Linux and macOS, not on {sys.platform}: use WSL or docker compose, "
            "or set FRAUDSTREAM_KAFKA_BOOTSTRAP, FRAUDSTREAM_REDIS_URL and FRAUDSTREAM_MLFLOW_URL to servers "
            "of your own"
        )
