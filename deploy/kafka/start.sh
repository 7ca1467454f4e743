#!/bin/bash
# Starts Kafka with the configuration beside this file; formats its volume the first time.
set -u
conf=/fraudstream/kafka/server.properties
data=/var/lib/kafka/data/log
if ! [ -w "${data%/*}" ]; then
    echo "error: ${data%/*} cannot be written by user $(id -u): the volume kafka-data belongs to another user;" \
        "it must be writable by the image's user" >&2
    exit 1
fi
export LOG_DIR=/tmp/kafka-logs EXTRA_ARGS="-name kafkaServer"
export KAFKA_LOG4J_OPTS="-Dlog4j2.configurationFile=/fraudstream/kafka/log4j2.properties"
ours=$(basename /opt/kafka/libs/kafka_2.13-*.jar .jar)
ours=${ours#kafka_2.13-}
# Volumes without the file are of 4.3.1 (docs/adr/0025).
theirs=$(cat "${data%/*}/kafka.version" 2>/dev/null)
theirs=${theirs:-4.3.1}
if [ -d "$data/__cluster_metadata-0" ] && [ "$(printf '%s\n' "$ours" "$theirs" | sort -V | tail -n 1)" != "$ours" ]; then
    echo "error: the volume kafka-data was written by Kafka $theirs, and this image has $ours, which cannot read" \
        "it: set KAFKA_IMAGE to an image of $theirs, or remove the volume and with it the topics" >&2
    exit 1
fi
if ! [ -d "$data/__cluster_metadata-0" ]; then
    rm -rf "$data" # never started: holds at most half a formatting
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    /opt/kafka/bin/kafka-storage.sh format --cluster-id "A${id:1}" --config $conf || exit 1
fi
echo "$ours" >"${data%/*}/kafka.version.new" && mv "${data%/*}/kafka.version.new" "${data%/*}/kafka.version"
exec /opt/kafka/bin/kafka-server-start.sh $conf
