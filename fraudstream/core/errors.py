"""Every error that a user can meet, as one tree; the command line turns it into a sentence and an exit code.

    FraudstreamError                exit 1  the product fell short
    ├── SettingsError               exit 2  a setting or argument is wrong: field, value, what is allowed
    ├── Refused                     exit 3  going on would lose or double something
    ├── Fenced                      exit 4  another process has the place of this one
    ├── DependencyUnreachable       exit 1  a server does not answer: address and what to try
    │   ├── KafkaUnreachable
    │   └── RedisUnreachable                the server of the features
    │       └── WritesRefused               it answers, but takes no writes for now: full, or a replica
    ├── TooLittle                   exit 1  there is not enough to learn from yet
    ├── NotInstalled                exit 1  a package that the command needs is not there
    └── BadRecord                   never leaves the scorer: the record becomes a dead letter

Three reactions, three types: a bad record goes to the dead-letter topic, a failing dependency is
retried with back-pressure, anything else ends the process before it commits.
"""

from fraudstream.core.health import Waited


class FraudstreamError(Exception):
    """Root of the tree: the message is one sentence for the user, `exit_code` the process status."""

    exit_code = 1


class SettingsError(FraudstreamError):
    """A setting or argument is wrong. Names the field, the value and what is allowed."""

    exit_code = 2


class Refused(FraudstreamError):
    """The product refuses to go on, since going on would lose, repeat or overwrite something."""

    exit_code = 3


class Fenced(FraudstreamError):
    """Kafka lets this process go no further: another has its place, or had a moment ago.

    Nothing was written since. A broker that was killed may take a worker for its own successor when it comes
    back, so unlike `Refused` this needs no person: started again, the process takes a free place.
    """

    exit_code = 4


class DependencyUnreachable(FraudstreamError):
    """A server does not answer. Names its address and what to try."""

    what: Waited | None = None
    """What a scorer says that it waits for; None for a server that it does without."""


class KafkaUnreachable(DependencyUnreachable):
    """No broker answers, or none tells what was asked."""

    what: Waited | None = "kafka"


class RedisUnreachable(DependencyUnreachable):
    """The server of the features does not answer."""

    what: Waited | None = "redis"


class WritesRefused(RedisUnreachable):
    """It answers, but takes no writes for now: its memory or disk is full, or its role has changed."""

    what: Waited | None = "writes_refused"


class TooLittle(FraudstreamError):
    """There is not enough to learn from yet: too few scored transactions, mature labels or frauds."""


class NotInstalled(FraudstreamError):
    """A package that the command needs is not installed here. Names it, and where the command can run."""


class BadRecord(FraudstreamError):
    """A record that can never be scored: `kind` is one of `DEAD_LETTER_KINDS`, the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Ended(KeyboardInterrupt):
    """A command is to end: SIGTERM, SIGHUP, SIGQUIT, or nobody can read any more what it says.

    A KeyboardInterrupt, so that whatever cleans up after Ctrl-C cleans up after these, too. `exit_code` is
    that of a process which the signal ended: 143 (SIGTERM), 129 (SIGHUP, terminal gone), 131 (SIGQUIT),
    141 (reader gone).
    """

    def __init__(self, why: str, signum: int) -> None:
        super().__init__(why)
        self.exit_code = 128 + signum


UNREADABLE_KINDS = (
    "null_value",
    "too_large",
    "malformed_json",
    "unknown_version",
    "invalid_field",
    "unreadable_header",
)
"""Dead letters that no transaction could be made of, by the limits and the release of their time."""
DEAD_LETTER_KINDS = (*UNREADABLE_KINDS, "poison", "score_too_large", "deadly")
