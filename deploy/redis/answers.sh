#!/bin/sh
# Success if the server answers PONG: not while it loads its file, nor when it cannot write to it.
client=$(command -v valkey-cli || command -v redis-cli) || exit 1
[ "$("$client" -h 127.0.0.1 ping)" = PONG ]
