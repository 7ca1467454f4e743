"""What the feature store says when it cannot answer, and what a server's error means to the product.

FraudstreamError
├── StateInDoubt       nothing may be scored until the state is proven whole, or rebuilt
│   ├── Behind         it ends before the batch begins
│   ├── StateReplaced  it is another than at connect, or somebody rebuilds or copies it
│   ├── RolledBack     it is an older copy of what this caller has seen
│   └── Unproven       the server began anew, and may have lost the end of what it had
└── ReplyGone          the record was committed before, and another worker has gone on; or it was passed over
"""

import re
from typing import NoReturn

from redis import exceptions

from fraudstream.core.errors import FraudstreamError, RedisUnreachable, Refused, WritesRefused


class StateInDoubt(FraudstreamError):
    """The state may lack what was applied to it. Nothing of the call was applied."""


class Behind(StateInDoubt):
    """The state lags behind the log: `partition` of topic `topic_id` was applied up to offset `mark` only.

    -1: no record of the partition was ever applied.
    """

    def __init__(self, topic_id: str, partition: int, mark: int) -> None:
        super().__init__(
            f"the feature state of partition {partition} of topic {topic_id} ends at offset {mark}, "
            "before the batch begins: apply the records after that offset first"
        )
        self.topic_id = topic_id
        self.partition = partition
        self.mark = mark


class StateReplaced(StateInDoubt):
    """The server holds another state than at connect: flushed, restored, being rebuilt or copied."""


class RolledBack(StateInDoubt):
    """The server has given out fewer places (apply_seq) than this caller has seen."""


class Unproven(StateInDoubt):
    """The server process is another than the one in which the state was last proven to be whole."""


class ReplyGone(FraudstreamError):
    """The record at `offset` of `partition` was brought again, and there is no reply of it.

    It was committed before, or passed over by a worker that could not read it.
    """

    def __init__(self, topic_id: str, partition: int, offset: int) -> None:
        super().__init__(
            f"the features of offset {offset} in partition {partition} of topic {topic_id} were applied "
            "before, and no reply is kept: start again from the committed offset"
        )
        self.partition = partition
        self.offset = offset


def translate(exc: exceptions.RedisError, address: str, topic_id: str) -> NoReturn:
    """Raise what an error of the client means.

    Raises:
        FraudstreamError: one of this module's, DependencyUnreachable, or Refused for a wrong login.
    """
    if isinstance(exc, exceptions.AuthenticationError):
        raise Refused(
            f"Redis at {address} refused the login: check user and password in redis_url"
        ) from exc
    if isinstance(exc, (exceptions.ConnectionError, exceptions.TimeoutError)):
        raise RedisUnreachable(
            f"Redis at {address} does not answer ({_reason(exc)}): is it running? Try "
            "`fraudstream stack status`, or check redis_url"
        ) from exc
    text = str(exc)
    if found := re.match(r"(BEHIND|GONE) (\d+) (-?\d+)$", text):
        _raise_place(exc, topic_id, found)
    if found := re.match(r"REPLACED|UNPROVEN|ROLLED_BACK", text):
        raise _DOUBTS[found[0]][0](f"Redis at {address} {_DOUBTS[found[0]][1]}") from exc
    if isinstance(exc, (exceptions.OutOfMemoryError, exceptions.ReadOnlyError)) or re.match(
        r"(OOM|MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY)", text
    ):
        raise WritesRefused(
            f"Redis at {address} refuses to write for now: {text}; free its memory or disk, "
            "or check its role, then go on"
        ) from exc
    raise FraudstreamError(f"Redis at {address} answered: {text}") from exc


_DOUBTS: dict[str, tuple[type[StateInDoubt], str]] = {
    "REPLACED": (
        StateReplaced,
        "holds another feature state than at connect: compare its marks with the committed offsets",
    ),
    "UNPROVEN": (
        Unproven,
        "began anew: compare the marks of its feature state with the committed offsets",
    ),
    "ROLLED_BACK": (
        RolledBack,
        "holds an older copy of the feature state: rebuild what it lacks",
    ),
}


def _raise_place(exc: exceptions.RedisError, topic_id: str, found: "re.Match[str]") -> NoReturn:
    partition, offset = int(found[2]), int(found[3])
    if found[1] == "BEHIND":
        raise Behind(topic_id, partition, offset) from exc
    raise ReplyGone(topic_id, partition, offset) from exc


def _reason(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__
