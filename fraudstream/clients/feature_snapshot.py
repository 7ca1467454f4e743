"""Snapshots of the feature state: a copy of a contiguous prefix of the log, taken while scoring waits."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_errors import StateReplaced
from fraudstream.clients.feature_state import (
    STATE_VERSION,
    FeatureState,
    Lease,
    new_incarnation,
    pattern_of,
)
from fraudstream.clients.snapshot_file import (
    Header,
    check_file,
    packed_record,
    read_records,
    write_file,
)
from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.feature_set import FeatureSet

SUFFIX = ".features"
_KEYS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 1 << 20


class Taken(msgspec.Struct, frozen=True):
    """A snapshot that was taken: its size, and how long scoring had to wait for it."""

    file: str
    keys: int
    bytes: int
    pause_s: float
    marks: dict[str, dict[int, int]]


class Restored(msgspec.Struct, frozen=True):
    """A snapshot that was restored: the workers roll it forward from `marks`."""

    file: str
    keys: int
    marks: dict[str, dict[int, int]]


def take_snapshot(state: FeatureState, target: Path, *, environment: str, now_ms: int) -> Taken:
    """Copy the state into `target`, which appears only when it is whole.

    Raises:
        Refused: there is no state, or it is being rebuilt or copied.
        FraudstreamError: the state was moved on meanwhile, or the file cannot be written.
        DependencyUnreachable: the server does not answer.
    """
    temporary = target.with_name(target.name + f".{os.getpid()}.part")
    try:
        with TemporaryFile(dir=target.parent) as records:
            with _lease(state) as lease:
                begun_s = monotonic_s()
                keys, header = _copy(state, records, lease, (environment, now_ms))
                pause_s = monotonic_s() - begun_s
            records.seek(0)
            write_file(temporary, header, records)  # compressed when scoring goes on again
        temporary.replace(target)
    except OSError as exc:
        raise FraudstreamError(f"snapshot {target} cannot be written: {exc.strerror}") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return Taken(str(target), keys, target.stat().st_size, round(pause_s, 3), header.marks)


def restore_snapshot(state: FeatureState, path: Path, topics: Mapping[str, str]) -> Restored:
    """Put a snapshot in the place of the state, and leave it to the workers to roll it forward.

    `topics` are the ids by name as the broker has them now.

    Raises:
        Refused: the file is damaged or of another set, version or topic; or somebody works on the state.
        StateReplaced: somebody has worked on it meanwhile, or the server began anew: restore it once more.
        DependencyUnreachable: the server does not answer.
    """
    header = check_fit(path, state, topics)
    with _lease(state) as lease:
        present = state.look()
        empty = state.fresh("rebuilding", holder=lease.token)
        begun = state.move("rebuilding", holder=lease.token) if present else state.put(empty)
        if not begun:
            raise Refused("somebody else works on the feature state just now: try again")
        keys = fill(state, path, lease.keep)
        state.forget_others()
    return Restored(str(path), keys, header.marks)


def check_fit(path: Path, state: FeatureState, topics: Mapping[str, str]) -> Header:
    """Return the header of a snapshot that may take the place of a state.

    Raises:
        Refused: the file is damaged, or of another feature set, version or topic.
    """
    header = check_file(path)
    if header.state_version > STATE_VERSION:
        raise Refused(
            f"snapshot {path} is of state version {header.state_version}, this program knows up to "
            f"{STATE_VERSION}: update fraudstream"
        )
    if header.state_version < STATE_VERSION:
        raise Refused(
            f"snapshot {path} is of state version {header.state_version}, which this program no longer "
            f"reads (it has {STATE_VERSION}): rebuild from the log"
        )
    if header.feature_set != state.feature_set.hash:
        raise Refused(
            f"snapshot {path} is of feature set {header.feature_set}, this program computes "
            f"{state.feature_set.hash}: take a snapshot of that set, or rebuild from the log"
        )
    for name, topic_id in topics.items():
        if (found := header.topics.get(name)) != topic_id:
            raise Refused(
                f"snapshot {path} is of another topic {name} (id {found}) than the one there is (id "
                f"{topic_id}): its offsets mean other records"
            )
    return header


def fill(
    state: FeatureState, path: Path, beat: Callable[[], object], *, proven: bool = False
) -> int:
    """Fill the key space of a new incarnation from a snapshot, then go over to it; return its keys.

    The caller holds the lease and has begun its turn; should it have lost it, nothing is changed. Nor if
    the server began anew meanwhile, which may have lost some of the keys.

    Raises:
        StateReplaced: somebody else has had a turn meanwhile, or the server began anew.
        DependencyUnreachable: the server does not answer.
    """
    fresh = msgspec.structs.replace(
        state.meta, incarnation=new_incarnation(state.feature_set), revision=state.meta.revision + 1
    )
    prefix = state.prefix_of(fresh.incarnation).encode()
    process = state.server.run_id()
    written, waiting, size = 0, dict[bytes, bytes](), 0
    for key, value in read_records(path):
        waiting[prefix + key] = value
        size += len(value)
        if size > _BYTES_AT_ONCE:
            written += _write(state, waiting)
            waiting, size = {}, 0
            beat()
    written += _write(state, waiting)
    if not state.put(fresh, proven=proven, process=process):
        raise StateReplaced(
            "somebody else has worked on the feature state meanwhile, or its server began anew"
        )
    return written


def newest_fitting(
    folder: Path, state: FeatureState, topics: Mapping[str, str]
) -> tuple[Path, Header] | None:
    """Return the newest snapshot of a folder that may take the place of the state."""
    for path in snapshots(folder, state.feature_set):
        try:
            return path, check_fit(path, state, topics)
        except Refused:
            continue
    return None


def snapshots(folder: Path, feature_set: FeatureSet) -> list[Path]:
    """Return the snapshots of a set that a folder has, the newest first."""
    return sorted(folder.glob(f"*Z-{feature_set.hash}{SUFFIX}"), reverse=True)


def snapshot_name(now_ms: int, feature_set: FeatureSet) -> str:
    """Return the name of a snapshot taken now; those of a set sort by time."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}{now_ms % 1000:03}Z-{feature_set.hash}{SUFFIX}"


def _copy(
    state: FeatureState, records: IO[bytes], lease: Lease, about: tuple[str, int]
) -> tuple[int, Header]:
    """Halt scoring, copy, and let it go on; return the number of keys, and what they are.

    Raises:
        Refused: there is nothing to copy, or somebody else works on it.
        FraudstreamError: somebody else took it over meanwhile.
    """
    meta = state.look()
    if meta is None:
        raise Refused("there is no feature state to copy yet: start a scorer")
    if meta.state == "rebuilding":
        raise Refused("the features are being rebuilt: take the snapshot when that is done")
    process = state.server.run_id()  # another one's keys are scanned in another order
    if not state.move("snapshot", holder=lease.token):
        raise Refused("somebody else works on the feature state just now: try again")
    keys, unmoved = 0, False
    try:
        header = _header_of(state, *about)
        for key, value in _pairs(state):
            records.write(packed_record(key, value))
            keys += 1
            lease.keep()
    finally:
        unmoved = state.move("ready", process=process)
    if not unmoved:
        raise FraudstreamError(
            "the feature state was moved on while it was copied, or its server began anew: nothing is kept, "
            "take another snapshot"
        )
    return keys, header


def _header_of(state: FeatureState, environment: str, now_ms: int) -> Header:
    """Read what the state is a fold of, and how far."""
    prefix = state.prefix
    client = state.server.client
    with state.server.translated():
        names = [key.decode() for key in client.scan_iter(pattern_of(f"{prefix}topic:"))]
        marked = [key.decode() for key in client.scan_iter(pattern_of(f"{prefix}m:"))]
        ids: Any = client.mget(names) if names else []
        offsets: Any = client.mget(marked) if marked else []
    topics = {
        key.removeprefix(f"{prefix}topic:"): value.decode()
        for key, value in zip(names, ids, strict=True)
    }
    marks: dict[str, dict[int, int]] = {name: {} for name in topics}
    for key, offset in zip(marked, offsets, strict=True):
        topic_id, _, partition = key.removeprefix(f"{prefix}m:").rpartition(":")
        for name in (name for name, known in topics.items() if known == topic_id):
            marks[name][int(partition)] = int(offset)
    return Header(
        state_version=state.meta.state_version,
        feature_set=state.meta.feature_set,
        environment=environment,
        created_at_ms=now_ms,
        topics=topics,
        marks=marks,
    )


def _pairs(state: FeatureState) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys of the present incarnation, without what all begin with, and their values."""
    prefix = state.prefix.encode()
    client = state.server.client
    cursor = 0
    with state.server.translated():
        while True:
            found: Any = client.scan(cursor, pattern_of(state.prefix), _KEYS_AT_ONCE)
            cursor, keys = int(found[0]), found[1]
            values: Any = client.mget(keys) if keys else []
            for key, value in zip(keys, values, strict=True):
                if value is not None:
                    yield key.removeprefix(prefix), value
            if cursor == 0:
                return


def _write(state: FeatureState, pairs: dict[bytes, bytes]) -> int:
    if pairs:
        with state.server.translated():
            state.server.client.mset(pairs)
    return len(pairs)


@contextmanager
def _lease(state: FeatureState) -> Iterator[Lease]:
    lease = Lease.take(state)
    if lease is None:
        raise Refused(
            "somebody rebuilds or copies the features just now: try again when that is done"
        )
    with lease:
        yield lease
