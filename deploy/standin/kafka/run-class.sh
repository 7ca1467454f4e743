#!/bin/bash
# What Kafka's own kafka-run-class.sh does with the variables that deploy/kafka/start.sh sets.
exec /opt/java/bin/java ${KAFKA_HEAP_OPTS:--Xmx1g} ${KAFKA_LOG4J_OPTS:-} ${KAFKA_OPTS:-} \
    -XX:-UsePerfData -cp '/opt/kafka/libs/*' "$@"
