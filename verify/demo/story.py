"""The demo as a story: history -> champion -> live -> a new fraud -> retraining -> swap -> the count."""

from collections.abc import Callable

import msgspec

from fraudstream.clients.clock import monotonic_s, process_cpu_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.evaluation import Share, share
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.settings import Settings, state_path
from verify.demo.board import WINDOW_DAYS, Board
from verify.demo.children import Children
from verify.demo.judgement import Judgement, contract_of, judge
from verify.demo.observer import Observer
from verify.demo.outage import Outages, check_own_redis
from verify.demo.retraining import Retraining
from verify.demo.scenarios import TRAINING_DAYS, VALIDATION_SHARE
from verify.demo.scored import await_scored
from verify.demo.stage import Options, Play, Tell, exclusive, prepare, servers
from verify.demo.summary import Summary
from verify.ledger import Ledger, Log

REFUSED = 3
DONE = "done"
"""The step of the board when all is told."""


def run(
    settings: Settings, options: Options, board: Board, tell: Tell, hold: Callable[[Summary], None]
) -> Summary:
    """Run the whole story and return its summary; `hold` is called before the servers go down.

    Raises:
        FraudstreamError: a part of it failed; the message says which and where its log is.
    """
    folder = state_path(settings)
    if options.scenario.outage:
        check_own_redis(settings)
    with exclusive(folder), Children(settings, folder / "logs", bars=False) as children:
        play = prepare(children, folder, options, tell)
        with servers(settings, keep=options.keep, tell=tell) as running:
            story = Story(running, children, options, play, board=board, tell=tell)
            try:
                summary = story.tell_all()
                board.step = DONE
                hold(summary)
            finally:
                story.end()
    return summary


class Story:
    """The steps of the demo in their order; each is a command that a user could give."""

    def __init__(
        self,
        settings: Settings,
        children: Children,
        options: Options,
        play: Play,
        *,
        board: Board,
        tell: Tell,
    ) -> None:
        self._settings = settings
        self._children = children
        self._options = options
        self._play = play
        self._board = board
        self._tell = tell
        self._retraining: Retraining | None = None
        self._training = False
        self._outages = Outages(settings, children, board, tell)
        self._told_versions = 0

    def tell_all(self) -> Summary:
        """Run every step and return the summary."""
        s = self._settings
        timeout_ms = s.connect_timeout_ms
        create_topics(s.kafka_bootstrap, s.environment, s.partitions, timeout_ms=timeout_ms)
        self._board.observer = observer = Observer(s, self._board.started_s)
        self._children.start("scorer", "scorer")
        history_rate = self._replay_history()
        self._train_champion()
        seconds, view_cpu_share = self._go_live(observer)
        ledger = self._count()
        judgement = judge(s, self._play, self._options.scenario, observer.watched)
        return self._summary(ledger, judgement, observer, (history_rate, seconds, view_cpu_share))

    def end(self) -> None:
        """Stop watching."""
        if self._board.observer is not None:
            self._board.observer.stop()

    def _begin(self, step: str, line: str) -> None:
        self._board.step = step
        self._tell(line)

    def _replay_history(self) -> float:
        """Send the history unpaced, wait until its features are logged; return transactions/s."""
        count = self._play.history
        self._begin(
            "history",
            f"replaying {count:,} past transactions unpaced; no model yet, features are logged",
        )
        began = monotonic_s()
        limit = ("--limit", str(count))
        arguments = (str(self._play.file), *self._play.cut, "--unpaced", *limit)
        self._children.run("history", "replay", *arguments)
        await_scored(self._settings, self._children)
        rate = count / (monotonic_s() - began)
        self._tell(f"features of {count:,} transactions logged at {rate:,.0f}/s")
        return round(rate, 1)

    def _train_champion(self) -> None:
        self._begin("training", "training from the logged features and the labels known by now")
        self._children.run("train", "train", "--promote", "--days", str(TRAINING_DAYS))
        promised = self._champion_promises()
        if self._options.scenario.after_days is not None:
            self._retraining = Retraining(promised, label_delay_ms=NINE.label_delay_ms)

    def _champion_promises(self) -> Share:
        """Tell, and return, the recall of the champion on the frauds of its validation rows."""
        contract = contract_of(self._settings)
        frauds = contract.window.validation_frauds
        recall = contract.metrics["alert_recall"]
        self._board.promised_recall = recall
        self._tell(
            f"fitted on the days before, it found {recall:.0%} of {frauds} frauds that it had not seen"
        )
        return share(round(recall * frauds), frauds)

    def _go_live(self, observer: Observer) -> tuple[float, float]:
        """Send the rest at a visible rate and watch; return its seconds and the view's share of a core."""
        o, play = self._options, self._play
        self._begin(
            "live",
            f"replaying at most {play.live:,} live transactions at {o.rate}/s: {o.scenario.what}",
        )
        observer.paced = True
        began, cpu_s = monotonic_s(), process_cpu_s()
        limit = ("--limit", str(play.history + play.live))
        arguments = (str(play.file), *play.cut, *limit, "--rate", str(o.rate))
        self._children.start("live", "replay", *arguments)
        while (status := self._children.finished("live")) is None:
            self._watch(observer)
            if self._has_told_enough(observer):
                self._children.stop("live")
                break
        if status:
            raise self._children.failure("live", "replay")
        seconds, cpu_s = monotonic_s() - began, process_cpu_s() - cpu_s
        self._await_seen(observer)
        if self._options.scenario.outage:
            self._outages.end()
        return seconds, cpu_s / seconds

    def _watch(self, observer: Observer) -> None:
        """One look, a few times a second: what happened, what is due."""
        observer.wait(0.2)
        observer.check()
        self._children.check()
        self._tell_versions(observer)
        if self._options.scenario.outage:
            with observer.lock:
                sent = len(observer.watched.served) / self._play.live
            self._outages.look(sent)
        if self._retraining is not None:
            self._see_to_retraining(observer, self._retraining)

    def _tell_versions(self, observer: Observer) -> None:
        for change in observer.watched.versions[self._told_versions :]:
            self._tell(f"version {change.version} serves, from one batch to the next")
            self._told_versions += 1

    def _see_to_retraining(self, observer: Observer, retraining: Retraining) -> None:
        with observer.lock:
            recall, now_ms = observer.quality.recall(WINDOW_DAYS), observer.quality.now_ms
        if retraining.look(recall, now_ms):
            self._begin(
                "recall has fallen",
                f"recall has fallen to {recall.value:.0%} of {recall.total} frauds known of the last "
                f"{WINDOW_DAYS} days; waiting for the labels of these days",
            )
        if self._training:
            self._see_training_end(retraining, now_ms)
        elif retraining.is_due(now_ms):
            self._begin("retraining", "retraining from what was served, while traffic goes on")
            days = ("--days", str(TRAINING_DAYS), "--validation-share", str(VALIDATION_SHARE))
            self._children.start("retrain", "train", "--promote", *days, watched=False)
            self._training = True

    def _see_training_end(self, retraining: Retraining, now_ms: int) -> None:
        status = self._children.finished("retrain")
        if status is None:
            return
        self._training = False
        if status == REFUSED:
            retraining.again(now_ms)
            self._begin(
                "waiting", "version not promoted, no better yet; again in two days of event time"
            )
        elif status:
            raise self._children.failure("retrain", "train")
        else:
            self._begin("retrained", "the second version passed its checks and is champion")
            self._champion_promises()

    def _has_told_enough(self, observer: Observer) -> bool:
        """Return whether the retrained model has served for the days that the scenario wants."""
        after = self._options.scenario.after_days
        with observer.lock:
            versions, now_ms = observer.watched.versions, observer.watched.event_time_ms or 0
            return (
                after is not None
                and len(versions) > 1
                and now_ms >= versions[-1].event_time_ms + after * DAY_MS
            )

    def _await_seen(self, observer: Observer) -> None:
        """Wait until all that was sent is scored and read here."""
        await_scored(self._settings, self._children)
        deadline = monotonic_s() + 10.0
        while not observer.has_read_all() and monotonic_s() < deadline:
            observer.check()
            observer.wait(0.1)

    def _count(self) -> Ledger:
        self._begin(
            "counting",
            "counting what came in against what came out, by position, with another client",
        )
        report = state_path(self._settings) / "ledger.json"
        self._children.run("ledger", "ledger", "--json", str(report))
        return msgspec.json.decode(report.read_bytes(), type=Ledger)

    def _summary(
        self,
        ledger: Ledger,
        judged: Judgement,
        observer: Observer,
        measured: tuple[float, float, float],
    ) -> Summary:
        history_rate, seconds, view_cpu_share = measured
        w = observer.watched
        return Summary(
            scenario=self._options.scenario.name,
            transactions=ledger.transactions,
            scored=ledger.scored,
            dead_letters=ledger.dead_letters,
            alerts=w.alerts,
            lost=ledger.lost + ledger.waiting,
            duplicates=ledger.duplicates + ledger.unfounded,
            frauds=judged.frauds,
            average_precision=judged.average_precision,
            lift_over_chance=judged.lift_over_chance,
            recall_before=judged.of("before", "recall"),
            recall_after=judged.of("after", "recall"),
            precision_before=judged.of("before", "precision"),
            precision_after=judged.of("after", "precision"),
            recall_without_retraining=judged.retraining.recall_without
            if judged.retraining
            else None,
            retraining=judged.retraining,
            periods=judged.periods,
            outages=tuple(self._outages.done),
            model_versions=len(w.versions),
            swaps=self._swaps(),
            swap_longest_pause_ms=max(w.pauses_ms, default=None),
            p50_ms=observer.quantile_ms(0.5),
            p99_ms=observer.quantile_ms(0.99),
            rate_per_s=round(len(w.served) / seconds, 1),
            seconds=round(self._board.elapsed_s, 1),
            history_rate_per_s=history_rate,
            live_transactions=len(w.served),
            view_cpu_share=round(view_cpu_share, 4),
        )

    def _swaps(self) -> int:
        """Return how often one version took over from another, by the audit topic; the first is no swap."""
        with Log(self._settings) as log:
            events = [msgspec.json.decode(r.value or b"") for r in log.records("audit")]
        served = {event["model_version"] for event in events if event["event"] == "swap"}
        return max(len(served) - 1, 0)
