"""The words in which every service says how it is: web views, compose, `stack status` and docs."""

from typing import Literal, get_args

import msgspec

State = Literal["starting", "ready", "waiting", "rebuilding", "snapshot", "stopped"]
MEANINGS: dict[State, str] = {
    "starting": "it looks for its servers, or for what it is to work on",
    "ready": "its servers answer and it has what it works on: a scorer its partitions and features",
    "waiting": "a server does not answer or takes no writes, or its loop hangs; nothing is lost",
    "rebuilding": "the features are made anew from the log",
    "snapshot": "the features are being copied",
    "stopped": "it was asked to end, or has ended",
}
STATES = get_args(State)

Waited = Literal["kafka", "redis", "writes_refused"]
WAITS: dict[Waited, str] = {
    "kafka": "Kafka does not answer",
    "redis": "Redis does not answer",
    "writes_refused": "Redis takes no writes",
}
"""What a scorer may wait for, as its metric names it, and as `why` at /readyz says it."""


class Health(msgspec.Struct, omit_defaults=True):
    """What a service says of itself; only `ready` answers /readyz with 200."""

    state: State
    why: str = ""
    """What is waited for, "" where there is nothing to say."""
    done: int = 0
    of: int = 0
    """Records of the present rebuild."""
    hangs: bool = False
    """Whether its loop has stood still for longer than anything it does may take; /livez says 503 then."""

    @property
    def ready(self) -> bool:
        """Return whether the service can do its work now."""
        return self.state == "ready"


def hanging(still_s: float) -> Health:
    """Return what a service is whose loop has not moved for `still_s` seconds."""
    return Health("waiting", f"its loop has not moved for {still_s:.0f} s: restart it", hangs=True)
