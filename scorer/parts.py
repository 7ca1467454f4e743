"""What the hot path is made of."""

import msgspec
from confluent_kafka import Consumer

from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.settings import Settings
from scorer.assignment import Assignment
from scorer.champion import Champion
from scorer.contact import Contact
from scorer.deaths import Deaths
from scorer.evenness import Evenness
from scorer.labels import LabelReader
from scorer.limits import Limits
from scorer.live_sets import LiveSets
from scorer.output import TransactionalOutput
from scorer.same_topics import SameTopics


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Built once by `scorer.bootstrap`."""

    settings: Settings
    consumer: Consumer
    live: LiveSets
    transactions: TopicFacts
    feedback: TopicFacts
    labels: LabelReader
    champion: Champion
    assignment: Assignment
    evenness: Evenness
    output: TransactionalOutput
    limits: Limits
    deaths: Deaths
    same_topics: SameTopics
    contact: Contact
