"""What kafka-python raises while a broker is away."""

from kafka.errors import RetriableError, UnknownBrokerIdError

AWAY = (RetriableError, UnknownBrokerIdError)
"""To be asked again. A broker that was frozen or has just started may know no controller: broker -1, then."""
