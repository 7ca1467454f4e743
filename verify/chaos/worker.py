"""A worker under test: `fraudstream scorer` with fault points; its standard input says where it shall die.

`python -m verify.chaos.worker [--sabotage NAME] ARGUMENTS OF fraudstream`

A line of standard input: `POINT PASSINGS`, or an empty one to arm nothing. When it is closed, whoever runs
the test is gone, and so is the worker. This module and `sabotage.py` alone know the scorer; what judges its
results does not.
"""

import faulthandler
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import Producer

from fraudstream.clients import kafka
from fraudstream.clients.feature_store import Applied, FeatureStore
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from scorer.hot_path import HotPath
from scorer.labels import LabelReader
from verify.chaos.points import ENDED_BY, KEPT, REBUILDING, Faults
from verify.chaos.sabotage import SABOTAGES

T = TypeVar("T")

REDELIVERED = "chaos: redelivered "
"""How a worker tells, in its log, how many records of a batch had been applied before."""

faults = Faults()


class TappedProducer(Producer):
    """The worker's producer with fault points between the steps of its transaction."""

    def begin_transaction(self) -> None:
        """Begin, then pass."""
        super().begin_transaction()
        faults.passed("transaction.begun")

    def produce(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401 - as librdkafka's own
        """Pass, then produce."""
        faults.passed("transaction.producing")
        super().produce(*arguments, **more)

    def send_offsets_to_transaction(self, *arguments: Any) -> None:  # noqa: ANN401
        """Pass before and after."""
        faults.passed("transaction.produced")
        super().send_offsets_to_transaction(*arguments)
        faults.passed("transaction.offsets")

    def commit_transaction(self, *arguments: Any) -> None:  # noqa: ANN401
        """Commit, then pass."""
        super().commit_transaction(*arguments)
        faults.passed("transaction.committed")


def tap_steps() -> None:
    """Put a fault point before and after every step that the hot path times, and around its proof."""
    timed, prove = HotPath._timed, HotPath._prove  # noqa: SLF001 - wrapped from outside on purpose

    def tapped(path: HotPath, hop: str, call: Callable[[], T]) -> T:
        faults.passed(f"{hop}.before")
        result = timed(path, hop, call)
        faults.passed(f"{hop}.after")
        return result

    def tapped_proof(path: HotPath) -> None:
        faults.passed("prove.before")
        prove(path)
        faults.passed("prove.after")

    setattr(HotPath, "_timed", tapped)  # noqa: B010 - mypy lets no method be assigned
    setattr(HotPath, "_prove", tapped_proof)  # noqa: B010


def tap_inside() -> None:
    """Put fault points inside the steps: after the labels, in the rebuild, in the transaction."""
    until, fold = LabelReader.apply_until, FeatureStore.fold

    def labelled(reader: LabelReader, offset: int, *, timeout_s: float) -> None:
        until(reader, offset, timeout_s=timeout_s)
        faults.passed("features.labelled")

    def folding(store: FeatureStore, topic_id: str, packed: bytes) -> int:
        faults.passed(REBUILDING)
        return fold(store, topic_id, packed)

    setattr(LabelReader, "apply_until", labelled)  # noqa: B010
    setattr(FeatureStore, "fold", folding)  # noqa: B010
    vars(kafka)["Producer"] = TappedProducer  # of which the worker has one, for its transactions


def count_redelivered() -> None:
    """Have the log say how many records came again after they had been applied, as the server saw it."""
    apply = FeatureStore.apply

    def counted(store: FeatureStore, *arguments: Any) -> Applied:  # noqa: ANN401
        applied = apply(store, *arguments)
        if again := int(applied.redelivered.sum()):
            sys.stderr.write(f"{REDELIVERED}{again}\n")
        return applied

    setattr(FeatureStore, "apply", counted)  # noqa: B010


def tell_kept_places() -> None:
    """Have the log say which places the group counts, as the worker asks before it takes one."""
    ask = kafka.kept_places

    def told(settings: Settings, group: str) -> list[str]:
        kept = ask(settings, group)
        sys.stderr.write(f"{KEPT}{' '.join(map(str, kept))}\n")
        return kept

    vars(kafka)["kept_places"] = told


def obey() -> None:
    """Arm what standard input says, until it is closed."""
    for line in sys.stdin:
        point, _, passings = line.strip().partition(" ")
        if point:
            faults.arm(point, int(passings))
        else:
            faults.disarm()
    os._exit(1)


def become(command: Callable[[], object]) -> None:
    """Carry a command out; if an error of the product ends it, the log says of which class it is.

    Otherwise only its sentence would stand there, and any error has one.
    """
    try:
        command()
    except SystemExit as end:
        if isinstance(end.__context__, FraudstreamError):
            sys.stderr.write(f"{ENDED_BY}{type(end.__context__).__name__}\n")
        raise


def run(arguments: list[str]) -> None:
    """Become the worker."""
    if arguments[:1] == ["--sabotage"]:
        SABOTAGES[arguments[1]]()
        arguments = arguments[2:]
    tap_steps()
    tap_inside()
    count_redelivered()
    tell_kept_places()
    faulthandler.register(signal.SIGUSR1)  # where it hangs, into its log, from the first moment on
    threading.Thread(target=obey, daemon=True).start()
    sys.argv[1:] = arguments
    become(lambda: runpy.run_module("fraudstream.cli", run_name="__main__"))


if __name__ == "__main__":
    run(sys.argv[1:])
