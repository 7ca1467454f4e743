#!/bin/bash
# Kafka's health check: a real metadata request (version 1, no topics), written by hand, since the tools of
# Kafka start a Java machine for each question. Success if the answer names at least one broker.
request='\x00\x00\x00\x15\x00\x03\x00\x01\x00\x00\x00\x07\x00\x07healthy\x00\x00\x00\x00'
exec 3<>/dev/tcp/127.0.0.1/9092 || exit 1
printf "$request" >&3
# size, correlation id (7), number of brokers: four bytes each
answer=$(timeout 3 head -c 12 <&3 | od -An -tu1 | tr -s ' \n' ' ')
set -- $answer
[ $# -eq 12 ] && [ "$8" = 7 ] && [ "${12}" -ge 1 ] || { echo "no broker in the answer: $answer"; exit 1; }
