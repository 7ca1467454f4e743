#!/bin/sh
# Sets up .venv with the locked dependencies and Kafka's jars. Usage: install.sh PYTHON LOCKFILE
# Needs nothing but a POSIX shell, Python and the core utilities; may be interrupted anywhere.
set -eu
python=$1
lock=$2
needed_mib=2048
busy=.venv/.installing # holds the process that installs here

say() { if [ -t 2 ]; then printf '\033[1m==>\033[0m %s\n' "$*" >&2; else printf '==> %s\n' "$*" >&2; fi; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
again="run the same command again, it goes on from here"

check_python() {
    command -v "$python" >/dev/null 2>&1 ||
        fail "$python not found: install Python 3.11 to 3.14, or name one as in make PYTHON=/path/to/python3"
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1 && return
    remedy="install one, then say make PYTHON=/path/to/python3"
    for other in python3.14 python3.13 python3.12 python3.11; do
        if command -v $other >/dev/null 2>&1; then remedy="say make PYTHON=$other"; fi
    done
    fail "$python is $("$python" --version 2>&1), but Python 3.11 to 3.14 is needed: $remedy"
}

claim_folder() {
    [ -w . ] || fail "$(pwd -P) is not writable for $(id -un): choose another folder or its owner"
    mkdir -p .venv
    holder=$(cat $busy 2>/dev/null || true)
    if [ -n "$holder" ] && kill -0 "$holder" 2>/dev/null; then
        fail "process $holder is installing in this folder: wait for it, then run the same command again (if it is no installation, remove $busy)"
    fi
    echo $$ >$busy || fail "$(pwd -P)/.venv cannot be written: is the disk full?"
    # Gone until all is complete, so that an interrupted run is taken up again by the next one.
    rm -f .venv/.runtime .venv/.dev
    # pip unpacks on the disk of .venv, where what a killed one leaves is found and removed.
    rm -rf .venv/tmp
    mkdir .venv/tmp
    TMPDIR=$(pwd -P)/.venv/tmp
    export TMPDIR
    trap 'trap "" INT TERM; end_watcher; rm -rf .venv/tmp $busy' EXIT
    trap 'printf "\n" >&2; fail "interrupted: $again"' INT TERM
}

make_environment() {
    # The scripts in .venv name this folder. Without its pip, it is what an interruption has left.
    if [ "$(cat .venv/.place 2>/dev/null || pwd -P)" = "$(pwd -P)" ] &&
        .venv/bin/python -m pip --version >/dev/null 2>&1; then
        return
    fi
    free_mib=$("$python" -c 'import shutil; print(shutil.disk_usage(".").free >> 20)')
    [ "$free_mib" -ge $needed_mib ] ||
        fail "the disk of $(pwd -P) has $free_mib MiB free, the installation needs $needed_mib: free some, then $again"
    say "making the virtual environment .venv"
    rm -rf .venv/bin .venv/include .venv/lib .venv/lib64 .venv/share .venv/pyvenv.cfg
    "$python" -m venv .venv ||
        fail "cannot make .venv (see above): install python3-venv if it is missing, or free disk space, then $again"
}

# pip is silent while it unpacks, up to a minute: say how far it is. Ends with this installation in any case.
watch_unpacking() {
    trap - EXIT INT TERM
    before=0
    ticks=600
    while [ $ticks -gt 0 ] && sleep 2 2>/dev/null && [ -e $busy ] && kill -0 $$ 2>/dev/null; do
        ticks=$((ticks - 1))
        set -- .venv/lib/python3*/site-packages/*.dist-info
        if [ $# -ge $((before + 10)) ] && [ $# -gt 10 ]; then
            printf '    %s packages unpacked\n' $# >&2
            before=$#
        fi
    done
}
end_watcher() { if [ -n "${watcher-}" ]; then kill "$watcher" 2>/dev/null || true; fi; }

install_packages() {
    # A package without its RECORD was being unpacked when pip was killed: pip would take it for complete.
    for package in .venv/lib/python3*/site-packages/*.dist-info; do
        [ -f "$package/RECORD" ] || rm -rf "$package"
    done
    say "installing the locked dependencies of $lock (400 MB to download, 1 to 5 minutes the first time)"
    watch_unpacking >/dev/null &
    watcher=$!
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar on --require-hashes -r "$lock" ||
        fail "the installation stopped, pip says above why (network, proxy, disk space): $again"
    end_watcher
    .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --no-index --editable . ||
        fail "the installation of fraudstream itself stopped, pip says above why: $again"
    pwd -P >.venv/.place
}

fetch_kafka() {
    say "fetching Kafka's jars (43 MB) and checking their digests"
    .venv/bin/python -m fraudstream.stack.kafka_jars || exit 1 # it has said why
    say "letting Kafka write its start cache (once, 15 s)"
    .venv/bin/python -m fraudstream.stack.kafka_aot
}

check_python
claim_folder
make_environment
install_packages
fetch_kafka
