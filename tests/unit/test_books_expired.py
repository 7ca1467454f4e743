"""The live ledger where topics begin later than at offset 0: what has expired is counted apart."""

import pytest

from tests.unit.test_books import Broker, arrive, books, figures, name, score, score_of, transaction
from verify.books import Output
from verify.ledger import Position
from verify.tally import SCORE
from verify.watch import Watch


def test_results_of_transactions_that_expired_are_counted_apart_and_are_no_difference() -> None:
    made, said = books(0, begin=1_000)
    arrive(made, range(1_000, 1_010))
    score(made, [0, 999, 999, *range(1_000, 1_010)])
    made.judge_committed({0: 1_010})
    ledger = made.ledger()
    assert figures(ledger) == (0, 0, 0, 0, 0)
    assert (ledger.transactions, ledger.scored, ledger.expired) == (10, 10, 3)
    assert ledger.balanced
    assert not said


def test_transactions_whose_scores_may_have_expired_are_not_called_lost_and_later_ones_are() -> (
    None
):
    made, said = books(0)
    made.open_scores(0, 500)
    arrive(made, range(1_000))
    score(made, [offset for offset in range(400, 1_000) if offset != 700])
    made.judge_committed({0: 1_000})
    ledger = made.ledger()
    assert (ledger.unknown, ledger.lost_positions) == (400, [Position(0, 700)])
    assert len(said) == 1
    arrive(made, range(1_000, 1_100))
    made.judge_committed({0: 1_100})
    assert (made.ledger().unknown, made.ledger().lost) == (400, 101), "what came since is certain"


def test_where_every_score_of_a_partition_expired_it_is_unknown_until_the_first_judgement() -> None:
    made, _ = books(0, 1)
    made.open_scores(0, 500)
    arrive(made, range(100))
    arrive(made, range(100), partition=1)
    made.result((1, 0), Output(SCORE, (1, 0), name(0)))  # scores 1 has everything
    made.judge_committed({0: 90, 1: 2})
    ledger = made.ledger()
    assert (ledger.unknown, ledger.lost_positions) == (90, [Position(1, 1)])
    made.judge_committed({0: 100})
    assert (made.ledger().unknown, made.ledger().lost) == (90, 11)
    score(made, [5])
    assert (made.ledger().unknown, made.ledger().scored, made.late) == (89, 2, 0)


def test_a_watch_over_topics_that_begin_later_finds_no_difference_but_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("verify.watch.ROUND_S", 0.0)
    broker, (made, said) = Broker(), books()
    watch = Watch(broker, "g", made)
    broker.logs["transactions"] = [transaction(n) for n in range(50)]
    broker.logs["scores"] = [score_of(n) for n in range(50) if n != 40]
    broker.done = 50
    broker.begin_at("transactions", 20)
    broker.begin_at("scores", 30)
    watch.step()
    watch.step()
    ledger = made.ledger()
    assert (ledger.transactions, ledger.scored, ledger.unknown) == (30, 19, 10)
    assert said == ["lost: 0:40 of transactions is committed, no result"]
    assert ledger.expired == 0
    broker = Broker()
    broker.logs["transactions"] = [transaction(n) for n in range(50)]
    broker.logs["scores"] = [score_of(n) for n in range(50)]
    broker.done = 50
    broker.begin_at("transactions", 20)
    made, said = books()
    watch = Watch(broker, "g", made)
    watch.step()
    watch.step()
    assert (made.ledger().scored, made.ledger().expired, said) == (30, 20, [])
