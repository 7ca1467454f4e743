#!/usr/bin/python3 -IS
"""Stand-in of valkey-cli, which the wheel of the server has not: `valkey-cli -h HOST WORD ...`."""

import socket
import sys

host, words = sys.argv[2], sys.argv[3:]
with socket.create_connection((host, 6379), 3) as connection:
    connection.settimeout(3)
    connection.sendall(" ".join(words).encode() + b"\r\n")
    sys.stdout.write(connection.recv(65536).decode().strip().lstrip("+") + "\n")
