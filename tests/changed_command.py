"""A command of the product with changes made to it: a guard taken out, or a freeze at a chosen place.

`python -m tests.changed_command CHANGE ... -- ARGUMENTS OF fraudstream`
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias

import msgspec

from fraudstream.cli import main
from fraudstream.clients import clock, feature_state, feature_store
from fraudstream.clients.feature_state import FeatureState, Meta
from fraudstream.clients.feature_store import FeatureStore, Slice
from fraudstream.clients.inference import Model
from fraudstream.core.errors import RedisUnreachable
from fraudstream.core.model import FloatArray
from fraudstream.core.settings import Settings
from monitoring.monitor import Monitor
from scorer import batch, contact, evenness, neighbours
from scorer.burial import Burial
from scorer.output import BatchAborted, TransactionalOutput
from scorer.rebuild import Rebuild
from scorer.results import Output
from scorer.status import Status
from tests.feature_streams import mutated

Owner: TypeAlias = Any
"""A class, a module, or what is handed to a function of theirs."""
POISON_AMOUNT = 666.0
"""In major units: a transaction of 66600 minor ones."""
JUMP_AFTER_NS = 5 * 10**9
COMPARED = "found[1] ~= meta"
"""Where a call of the library compares the record that it brings with the one there is."""
INCARNATION = "gsub('\"incarnation\":\"[%x.]*\"', '')"
LIBRARY = {
    "calls do not compare the record": (COMPARED, "false"),
    "calls do not compare the incarnation": (
        COMPARED,
        f"(found[1] or ''):{INCARNATION} ~= meta:{INCARNATION}",
    ),
    "moves do not compare the record": (
        "if (call('GET', keys[2]) or '') ~= expected then",
        "if false then",
    ),
    "deletions do not compare the record": (
        "if redis.call('GET', keys[1]) ~= args[1] then\n    return 0\n  end\n  return redis.call('UNLINK'",
        "if false then\n    return 0\n  end\n  return redis.call('UNLINK'",
    ),
}
"""Mutants of the library: what is replaced in its source, and by what."""


def _change_library(name: str) -> None:
    vars(feature_store)["build_library"] = mutated(LIBRARY[name])


def _tell_nothing() -> None:
    vars(evenness)["write_note"] = lambda _: ""


def _wait_for_a_minute() -> None:
    vars(neighbours)["PATIENCE_S"] = 60.0


def _lose_the_broker() -> None:
    """Let Faust look for Kafka where nothing listens, after the hot path has found it."""
    from scorer import app  # noqa: PLC0415 - with it comes Faust, which is loaded late

    original = app.build_app

    def build_app(settings: Settings, *more: Owner) -> Owner:
        return original(msgspec.structs.replace(settings, kafka_bootstrap="127.0.0.1:1"), *more)

    vars(app)["build_app"] = build_app


def _ask_before_faust_hears() -> None:
    """Send SIGTERM to this process when Faust begins, just before it has handlers of its own."""
    from scorer import app  # noqa: PLC0415 - as above

    begin = app.ScorerWorker.on_first_start

    async def asked(worker: Owner) -> None:
        signal.raise_signal(signal.SIGTERM)
        await begin(worker)

    setattr(app.ScorerWorker, "on_first_start", asked)  # noqa: B010


def _stop_slowly() -> None:
    """Let Faust's app take a second more to stop than the hot path beside it."""
    import faust  # noqa: PLC0415 - the first batch need not wait for it

    stop = faust.App.on_stop

    async def slowly(app: Owner) -> None:
        await asyncio.sleep(1.0)
        await stop(app)

    setattr(faust.App, "on_stop", slowly)  # noqa: B010


def _take_leases_without_end() -> None:
    vars(feature_state)["LEASE_MS"] = 600_000


def _jump_back() -> None:
    """Let the wall clock go back by an hour, five seconds after the start; monotonic time goes on."""
    begun_ns = time.monotonic_ns()

    def time_ns() -> int:
        late = time.monotonic_ns() - begun_ns > JUMP_AFTER_NS
        return time.time_ns() - (3_600 * 10**9 if late else 0)

    vars(clock)["time"] = SimpleNamespace(
        time_ns=time_ns, monotonic=time.monotonic, process_time=time.process_time
    )


def _do_nothing_in(owner: type, method: str) -> None:
    setattr(owner, method, lambda *_: None)


def _freeze_before(owner: type, method: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Stop this process, once, as SIGSTOP does, at the first call of a method `when` so."""
    original = getattr(owner, method)

    def frozen(*arguments: object, **more: object) -> object:
        if when(*arguments):
            setattr(owner, method, original)
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(
                1
            )  # the stop reaches the other threads first, it may be; none goes on before
        return original(*arguments, **more)

    setattr(owner, method, frozen)


def _is_rebuilt(state: FeatureState, meta: Meta) -> bool:
    return (state.meta.state, meta.state) == ("rebuilding", "ready")


def _raise_in(owner: Owner, method: str, when: Callable[..., bool]) -> None:
    """Raise at each call of a method `when` so, as a fault of that hop would."""
    original = getattr(owner, method)

    def raising(*arguments: Owner, **more: Owner) -> object:
        if when(*arguments):
            raise RuntimeError("a planted fault")
        return original(*arguments, **more)

    setattr(owner, method, raising)


def _be_away_at(owner: Owner, *methods: str) -> None:
    """Let the feature store be away at each second call of some methods."""
    for method in methods:
        original = getattr(owner, method)
        calls = itertools.count()

        def away(
            *arguments: Owner,
            original: Callable[..., object] = original,
            calls: Iterator[int] = calls,
        ) -> object:
            if next(calls) % 2 == 0:
                raise RedisUnreachable("a planted absence")
            return original(*arguments)

        setattr(owner, method, away)


def _die_at(owner: Owner, function: str, when: Callable[..., bool]) -> None:
    """End this process, as a fault in native code does, at each call of a function `when` so."""
    original = getattr(owner, function)

    def deadly(*arguments: Owner, **more: Owner) -> object:
        if when(*arguments):
            signal.raise_signal(signal.SIGSEGV)  # in this thread, at once
        return original(*arguments, **more)

    setattr(owner, function, deadly)


def _lose_the_answer(owner: Owner, when: Callable[[Sequence[Output]], bool]) -> None:
    """Commit, once, and take it for aborted, as when the broker dies between deed and answer."""
    original = owner.commit

    def commit(output: Owner, outputs: list[Output], *more: Owner) -> None:
        original(output, outputs, *more)
        if when(outputs):
            owner.commit = original
            raise BatchAborted("the answer is lost")

    owner.commit = commit


def _tells_of_a_swap(outputs: Sequence[Output]) -> bool:
    return any(each.topic == "audit" for each in outputs)


def _has_results(_: TransactionalOutput, outputs: Sequence[Output], *__: Owner) -> bool:
    return bool(outputs)


def _has_poison(_: Model, features: FloatArray) -> bool:
    return bool((features[:, 0] == POISON_AMOUNT).any())


def _is_deadly(value: bytes | None) -> bool:
    return value is not None and b'"deadly' in value


def _has_deadly(_: FeatureStore, __: str, slices: Sequence[Slice]) -> bool:
    return any(each.transaction_id.startswith("deadly") for s in slices for each in s.transactions)


CHANGES: dict[str, Callable[[], None]] = {
    **{name: partial(_change_library, name) for name in LIBRARY},
    "neighbours are waited for for a minute": _wait_for_a_minute,
    "commits carry no event time": _tell_nothing,
    "the worker's own client finds no broker": _lose_the_broker,
    "it is asked to end before Faust hears": _ask_before_faust_hears,
    "Faust takes a second to stop": _stop_slowly,
    "no question of the worker's own clients is answered": partial(
        vars(contact).__setitem__, "_answers", lambda *_: False
    ),
    "the monitor dies before it tells": partial(_die_at, Monitor, "_tell", lambda *_: True),
    "the monitor dies before it saves": partial(_die_at, Monitor, "_save", lambda *_: True),
    "the monitor dies once it has saved": partial(_die_at, Monitor, "_show", lambda *_: True),
    "leases have no end": _take_leases_without_end,
    "a rebuild does not ask where the log begins": partial(_do_nothing_in, Rebuild, "_check_log"),
    "the model raises at a poisonous amount": partial(_raise_in, Model, "score", _has_poison),
    "the model raises always": partial(_raise_in, Model, "score", lambda *_: True),
    "the feature store is away before and after a burial": partial(
        _be_away_at, Burial, "lacking", "pass_over"
    ),
    "no share of dead letters is too large": partial(_do_nothing_in, Status, "check_probe"),
    "decoding a deadly record ends the process": partial(
        _die_at, batch, "decode_transaction", _is_deadly
    ),
    "the features of a deadly record end the process": partial(
        _die_at, FeatureStore, "apply", _has_deadly
    ),
    "decoding any record ends the process": partial(
        _die_at, batch, "decode_transaction", lambda _: True
    ),
    "the first batch ends the process before its commit": partial(
        _die_at, TransactionalOutput, "commit", _has_results
    ),
    "the clock jumps back an hour": _jump_back,
    "the answer to the commit of a swap is lost": partial(
        _lose_the_answer, TransactionalOutput, _tells_of_a_swap
    ),
    "freeze before the first fold": partial(_freeze_before, FeatureStore, "fold"),
    "freeze before the state is ready": partial(_freeze_before, FeatureState, "put", _is_rebuilt),
    "freeze before former states are deleted": partial(
        _freeze_before, FeatureState, "forget_others"
    ),
}


if __name__ == "__main__":
    end = sys.argv.index("--")
    for change in sys.argv[1:end]:
        CHANGES[change]()
    sys.argv[1 : end + 1] = []
    main()
