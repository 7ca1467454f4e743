#!/bin/sh
# Starts Valkey, or Redis if the image has that, as the embedded stack does; memory below the container's.
server=$(command -v valkey-server || command -v redis-server) || {
    echo "error: the image has neither valkey-server nor redis-server: set REDIS_IMAGE to one of them" >&2
    exit 1
}
if ! [ -w /data ]; then
    echo "error: /data cannot be written by user $(id -u): the volume redis-data belongs to another user" >&2
    exit 1
fi
exec "$server" --bind 0.0.0.0 --port 6379 --protected-mode no --dir /data --appendonly yes \
    --appendfsync everysec --auto-aof-rewrite-min-size 1gb --maxmemory "${REDIS_MAXMEMORY:-1gb}" \
    --maxmemory-policy noeviction --save "" --daemonize no --loglevel notice
