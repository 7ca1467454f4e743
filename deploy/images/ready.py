"""The health check of a service's container: success if /readyz answers 200; prints what it says.

`ready.py PORT /metrics` reads another page, for people: there is no curl in the images.
Needs nothing but sockets, so that Python starts in 20 ms of CPU.
"""

import socket
import sys

path = sys.argv[2] if len(sys.argv) > 2 else "/readyz"
request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 3) as connection:
        connection.settimeout(3)
        connection.sendall(request.encode())
        answer = connection.makefile("rb").read().decode(errors="replace")
except OSError as exc:
    sys.exit(f"{path} at port {sys.argv[1]} does not answer: {exc}")
sys.stdout.write(answer.partition("\r\n\r\n")[2])
sys.exit(0 if answer.split(" ", 2)[1:2] == ["200"] else 1)
