#!/bin/sh
# Stand-in of the official image's entry point: makes the database the first time, then becomes the server.
set -eu
PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH
if ! [ -s "$PGDATA/PG_VERSION" ]; then
    made=$PGDATA.made # renamed when it is whole: an interrupted start begins again
    rm -rf "$made" "$PGDATA"
    initdb --pgdata="$made" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >&2
    echo "host all all all scram-sha-256" >>"$made/pg_hba.conf"
    pg_ctl --pgdata="$made" --wait --options="-c listen_addresses=''" start >&2
    psql --username="$POSTGRES_USER" --dbname=postgres --command="CREATE DATABASE \"$POSTGRES_DB\"" >&2
    pg_ctl --pgdata="$made" --wait --mode=fast stop >&2
    mv "$made" "$PGDATA"
fi
exec "$@" -c listen_addresses='*'
