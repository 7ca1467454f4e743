#!/bin/bash
exec /opt/kafka/bin/run-class.sh kafka.Kafka "$@"
