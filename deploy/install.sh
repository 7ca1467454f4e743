#!/bin/sh
# Sets up .venv with the locked dependencies and Kafka's jars. Usage: install.sh PYTHON LOCKFILE
set -eu
python=$1
lock=$2

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 || fail "$python not found: install Python 3.11 to 3.14, or say make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' ||
    fail "$("$python" --version 2>&1) is not supported: use Python 3.11 to 3.14, as in make PYTHON=python3.12"

# A folder without its pip is what an interrupted installation leaves behind.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making the virtual environment .venv"
    rm -rf .venv
    "$python" -m venv .venv || fail "cannot make .venv here: is the folder writable, the disk full, or python3-venv missing?"
fi
say "installing the locked dependencies of $lock (some minutes the first time)"
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar on --require-hashes -r "$lock" ||
    fail "the installation stopped: run the same command again, it goes on where it was"
.venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --no-index --editable . ||
    fail "the installation of fraudstream itself stopped: run the same command again"
say "fetching Kafka's jars and checking their digests"
.venv/bin/python -m fraudstream.stack.kafka_jars || fail "Kafka's jars are not complete: run the same command again"
say "letting Kafka write its start cache (once, 15 s)"
.venv/bin/python -m fraudstream.stack.kafka_aot
