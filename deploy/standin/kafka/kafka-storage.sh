#!/bin/bash
KAFKA_HEAP_OPTS=-Xmx256m exec /opt/kafka/bin/run-class.sh kafka.tools.StorageTool "$@"
