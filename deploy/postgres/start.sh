#!/bin/sh
# Looks at the volume before PostgreSQL does, and says in a sentence what is wrong with it.
if ! [ -s "${POSTGRES_PASSWORD_FILE:?}" ]; then
    echo "error: the secret $POSTGRES_PASSWORD_FILE is missing or empty: \`make up\` makes it" >&2
    exit 1
fi
ours=$(postgres --version 2>/dev/null || "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/postgres" --version)
ours=$(echo "$ours" | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
if [ -s "${PGDATA:?}/PG_VERSION" ]; then
    theirs=$(cat "$PGDATA/PG_VERSION")
    if [ "$theirs" != "$ours" ]; then
        echo "error: the volume postgres-data is of PostgreSQL $theirs, the image has $ours: dump it with an image of" \
            "$theirs (set POSTGRES_IMAGE) and load it into a new volume, or remove the volume if MLflow's records may go" >&2
        exit 1
    fi
fi
exec docker-entrypoint.sh postgres "$@"
