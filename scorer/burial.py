"""One record without a score becomes a dead letter, in a Kafka transaction of its own."""

import msgspec

from fraudstream.clients.feature_store import Slice
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import BadRecord
from scorer.assignment import Assignment
from scorer.batch import ALL, DeadLetter, Message
from scorer.deaths import Deaths
from scorer.evenness import Evenness
from scorer.limits import Limits
from scorer.live_sets import LiveSets
from scorer.output import TransactionalOutput
from scorer.results import dead_letter


class Burial(msgspec.Struct, frozen=True, kw_only=True):
    """Commits a dead letter that says which feature sets lack the record; their rebuilds leave it out.

    A set holds it if its mark has reached it: the record failed, or ended the worker, further on.
    """

    live: LiveSets
    transactions: TopicFacts
    assignment: Assignment
    evenness: Evenness
    deaths: Deaths
    limits: Limits
    output: TransactionalOutput

    def lacking(self, message: Message) -> list[str]:
        """Return the feature sets that do not hold a message.

        Raises:
            StateInDoubt, DependencyUnreachable: as the feature store does.
        """
        topic_id, partition = self.transactions.topic_id, message.partition()
        return [
            each
            for each, store in self.live.stores.items()
            if store.marks(topic_id, [partition])[partition] < message.offset()
        ]

    def bury(self, message: Message, why: BadRecord, lacking: list[str]) -> Slice:
        """Commit the dead letter; return what the sets that lack the record have to pass over then.

        Dying before they do is no harm: the marks lag behind what is committed, so the features are rebuilt.

        Raises:
            BatchAborted: it was not committed.
        """
        partition, offset = message.partition(), message.offset()
        sets = ALL if len(lacking) == len(self.live.stores) else ",".join(lacking)
        bare = why.kind == "deadly"  # whatever kills may be in the headers
        letter = DeadLetter(message, why.kind, str(why), not_applied=sets, bare=bare)
        previous = self.assignment.positions[partition] - 1
        places = {partition: offset}
        notes = self.deaths.amend(self.evenness.notes(places), places, buried=True)
        self.output.commit(
            [dead_letter(letter, self.limits.dead_letters)],
            self.assignment.offsets_after(places, notes),
            self.assignment.group_metadata,
        )
        self.assignment.done(places)
        self.deaths.done(notes)
        return Slice(
            partition=partition,
            previous_offset=previous,
            last_offset=offset,
            committed_offset=offset,
            offsets=[],
            transactions=[],
        )

    def pass_over(self, place: Slice, lacking: list[str]) -> None:
        """Let sets go on behind a place without a record; may be repeated.

        Raises:
            StateInDoubt, DependencyUnreachable: as the feature store does.
        """
        for each in lacking:
            self.live.stores[each].apply(self.transactions.topic_id, [place])
