"""The embedded stack for its callers: bring it up, wait for a server, look at it, take it down."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError, Refused, SettingsError
from fraudstream.core.settings import Settings
from fraudstream.stack.locks import exclusive, is_held, pause
from fraudstream.stack.ports import choose_ports
from fraudstream.stack.servers import ANSWERS, PLANS
from fraudstream.stack.state import (
    SERVERS,
    Server,
    ServerName,
    StackPaths,
    StackState,
    identify,
    is_alive,
    log_tail,
    read_state,
    require_supported_platform,
    running_state,
)
from fraudstream.stack.supervisor import StackPlan

POLL_S = 0.02
START_WAIT_S = 150.0
STOP_WAIT_S = 8.0
KILL_WAIT_S = 2.0

Progress = Callable[[ServerName, str], None]
"""Called with a server's name and `starting` or `ready`, once each."""


class Addresses(msgspec.Struct, frozen=True):
    """Where the three servers listen, the user's own or the stack's."""

    kafka_bootstrap: str
    redis_url: str
    mlflow_url: str


def up(
    settings: Settings,
    *,
    owner_pid: int | None = None,
    wait_for: Sequence[ServerName] = SERVERS,
    on_progress: Progress = lambda name, what: None,
) -> Addresses:
    """Start what the settings give no address of, or find it running; return when `wait_for` answers.

    The stack ends with the process `owner_pid`, even if that gets SIGKILL; without one it runs until `down`.
    A caller that dies before `wait_for` is ready takes the stack along.

    Raises:
        SettingsError: a port is taken, or the state folder cannot be written or is full.
        Refused: a jar's digest is wrong, or what runs is not what the settings ask for.
        FraudstreamError: a server did not start (with the end of its log), or cannot on this platform.
    """
    names = embedded_servers(settings)
    if names:
        require_supported_platform()
        paths = StackPaths.of(settings)
        paths.make()
        wanted = [name for name in wait_for if name in names]
        with exclusive(paths.start_lock, wait_s=START_WAIT_S):
            if _found(paths) is None:
                _start(settings, paths, owner_pid, wanted)
            _await(paths, wanted, on_progress)
        _require_same_servers(paths, names)
    return addresses(settings)


def wait(
    settings: Settings,
    names: Sequence[ServerName],
    on_progress: Progress = lambda name, what: None,
) -> None:
    """Return when the servers `names` of the running stack answer; the user's own are not asked.

    Raises:
        FraudstreamError: the stack ended, or a server does not answer in time.
    """
    embedded = embedded_servers(settings)
    _await(StackPaths.of(settings), [name for name in names if name in embedded], on_progress)


def down(settings: Settings, *, wipe: bool = False) -> bool:
    """End the stack, wait until nothing of it is left (at most 10 s), return whether it ran.

    Raises:
        FraudstreamError: a process could not be ended.
    """
    paths = StackPaths.of(settings)
    ran = is_held(paths.lock)
    if ran:
        _tell_supervisor_to_end(paths)
        if not _is_free(paths, STOP_WAIT_S):
            _kill_group(read_state(paths))
        if not _is_free(paths, KILL_WAIT_S):
            raise FraudstreamError(f"processes of the stack in {paths.root} cannot be ended")
    paths.state.unlink(missing_ok=True)
    if wipe:
        with exclusive(paths.start_lock, wait_s=START_WAIT_S):
            shutil.rmtree(paths.data, ignore_errors=True)
    return ran


def status(settings: Settings) -> StackState | None:
    """Return the running stack, None if there is none."""
    return running_state(StackPaths.of(settings))


def asked(state: StackState) -> dict[ServerName, Server]:
    """Return the servers as they answer now, all asked at once: one that was ready may be frozen."""
    with ThreadPoolExecutor() as beside:
        answers = beside.map(lambda each: ANSWERS[each[0]](each[1].port), state.servers.items())
        return {
            name: server
            if answer or not server.ready
            else msgspec.structs.replace(server, ready=False, silent=True)
            for (name, server), answer in zip(state.servers.items(), answers, strict=True)
        }


def logs(settings: Settings, name: str, lines: int = 50) -> str:
    """Return the last lines of the log of a server, or of `supervisor`."""
    return log_tail(StackPaths.of(settings), name, lines)


def addresses(settings: Settings) -> Addresses:
    """Return the addresses of the settings, else those of the running stack (empty if it has none)."""
    state = status(settings)
    servers = state.servers if state else {}
    found = {name: server.address for name, server in servers.items()}
    return Addresses(
        kafka_bootstrap=settings.kafka_bootstrap or found.get("kafka", ""),
        redis_url=settings.redis_url or found.get("redis", ""),
        mlflow_url=settings.mlflow_url or found.get("mlflow", ""),
    )


def embedded_servers(settings: Settings) -> tuple[ServerName, ...]:
    """Return the servers that the settings give no address of."""
    own = {
        "kafka": settings.kafka_bootstrap,
        "redis": settings.redis_url,
        "mlflow": settings.mlflow_url,
    }
    return tuple(name for name in SERVERS if not own[name])


def _found(paths: StackPaths) -> StackState | None:
    """Return the stack that runs; wait for the end of one that is just going down."""
    state = running_state(paths)
    if state is not None:
        return state
    if not _is_free(paths, STOP_WAIT_S):
        _kill_group(read_state(paths))
    if not _is_free(paths, KILL_WAIT_S):
        raise FraudstreamError(
            f"processes of an earlier stack in {paths.root} still run: `fraudstream stack down`"
        )
    return None


def _start(
    settings: Settings, paths: StackPaths, owner_pid: int | None, wanted: Sequence[ServerName]
) -> None:
    names = embedded_servers(settings)
    owner = identify(owner_pid) if owner_pid is not None else None
    if owner_pid is not None and owner is None:
        raise SettingsError(f"owner process {owner_pid} does not exist")
    ports = choose_ports(settings, paths, ("kafka_controller", *names))
    plan = StackPlan(
        root=str(paths.root),
        servers=tuple(PLANS[name](paths, ports) for name in names),
        wait_for=tuple(wanted),
        owner=owner,
        starter=identify(os.getpid()),
    )
    paths.state.unlink(missing_ok=True)
    shutil.rmtree(paths.temporary, ignore_errors=True)
    paths.temporary.mkdir()
    command = (sys.executable, "-P", "-m", "fraudstream.stack.supervisor")
    with paths.log("supervisor").open("wb") as log:
        done = subprocess.run(  # noqa: S603 - our own module; it detaches and returns at once
            command, input=msgspec.json.encode(plan), stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise FraudstreamError(
            f"the stack's supervisor did not start:{log_tail(paths, 'supervisor')}"
        )


def _await(paths: StackPaths, wanted: Sequence[ServerName], on_progress: Progress) -> None:
    deadline = monotonic_s() + START_WAIT_S
    said: dict[ServerName, str] = {}
    while monotonic_s() < deadline:
        held = is_held(paths.lock)  # before the state: a failed start writes it, then lets go
        state = read_state(paths)
        if not held:
            _raise_ended(paths, state)
        servers = state.servers if state else {}
        for name in wanted:
            what = "ready" if name in servers and servers[name].ready else "starting"
            if said.get(name) != what:
                on_progress(name, what)
            said[name] = what
        if all(said.get(name) == "ready" for name in wanted):
            return
        pause(POLL_S)
    raise FraudstreamError(f"{', '.join(wanted)} did not answer within {START_WAIT_S:.0f} s")


def _raise_ended(paths: StackPaths, state: StackState | None) -> None:
    if state is not None and state.error:
        raise FraudstreamError(state.error)
    raise FraudstreamError(
        f"the stack in {paths.root} ended while it was waited for{log_tail(paths, 'supervisor')}"
    )


def _require_same_servers(paths: StackPaths, names: Sequence[ServerName]) -> None:
    state = running_state(paths)
    missing = [name for name in names if state and name not in state.servers]
    if missing:
        raise Refused(
            f"the stack in {paths.root} was started without {', '.join(missing)}, since the settings then "
            "gave an address: run `fraudstream stack down` first, or set the address again"
        )


def _tell_supervisor_to_end(paths: StackPaths) -> None:
    """Send SIGTERM to the supervisor, as soon as a stack that is just starting says which process it is."""
    deadline = monotonic_s() + KILL_WAIT_S
    while is_held(paths.lock) and monotonic_s() < deadline:
        state = read_state(paths)
        if state is not None and is_alive(state.supervisor):
            os.kill(state.supervisor.pid, signal.SIGTERM)
            return
        pause(POLL_S)


def _kill_group(state: StackState | None) -> None:
    """Kill all that is left; the lock is held, so the supervisor's group still has members."""
    if state is not None:
        try:
            os.killpg(state.supervisor.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _is_free(paths: StackPaths, wait_s: float) -> bool:
    deadline = monotonic_s() + wait_s
    while is_held(paths.lock):
        if monotonic_s() > deadline:
            return False
        pause(POLL_S)
    return True
