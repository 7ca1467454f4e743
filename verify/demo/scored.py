"""Waits, as an outsider, until the scorers have committed every transaction that was sent."""

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from verify.demo.children import Children
from verify.ledger import Log

WAIT_S = 120.0
"""So long the scorers may stand still."""
LOOK_S = 0.1


def await_scored(settings: Settings, children: Children, *, worker: str = "scorer") -> None:
    """Return when no transaction waits; `worker` is the child of `children` that is at work.

    Raises:
        ChildFailed: a child ended early.
        FraudstreamError: the scorers do not get on.
    """
    group = f"{settings.environment}.scorer"
    best, deadline = -1, 0.0
    with Log(settings) as log:
        done, total = log.lag(group)
        while done < total:
            children.check()
            if done > best:
                best, deadline = done, monotonic_s() + WAIT_S
            if monotonic_s() > deadline:
                raise FraudstreamError(
                    f"the scorer stands at {done:,} of {total:,} for {WAIT_S:.0f} s"
                )
            children.status(worker, wait_s=LOOK_S)
            done, total = log.lag(group)
