#!/bin/sh
# The first process of a service's container: runs `fraudstream` with the arguments and ends as it ends.
# A restart policy knows no exit codes. So with HOLD_REFUSED=1 a service that refuses to go on (exit code 3:
# going on would lose, repeat or overwrite something) keeps its container, unready, until a person restarts it.
fraudstream "$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM INT
wait $child
status=$?
while kill -0 $child 2>/dev/null; do # the wait was ended by a signal
    wait $child
    status=$?
done
if [ $status -ne 3 ] || [ "${HOLD_REFUSED:-0}" != 1 ]; then
    exit $status
fi
trap 'exit 3' TERM INT # before it is said: who reads it may stop the container at once
echo "held: exit code 3 needs a person (the sentence above says what to do); then docker compose restart" >&2
while :; do
    sleep 3600 &
    wait $!
done
