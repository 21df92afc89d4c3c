"""Whose connection it is, as the kernel tells."""

import os
import socket
import subprocess
import sys

from localcloud import sockets

BUSY = """
import fcntl, os, socket, sys, threading
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
# Behind those that come and go, as in a process that lives for long.
high = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD, 400)
connection.close()
connection = socket.socket(fileno=high)
def open_and_close():
    while True:
        for file in [open("/dev/null") for _ in range(50)]:
            file.close()
for _ in range(2):
    threading.Thread(target=open_and_close, daemon=True).start()
connection.recv(1)
"""


def test_a_process_that_opens_and_closes_files_all_the_time_is_still_known_by_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", BUSY, str(port)]) as process:
            connection, peer = server.accept()
            with connection:
                number = sockets.inode(peer, ("127.0.0.1", port))
                assert number is not None
                found = [sockets.owner(number, [os.getpid(), process.pid]) for _ in range(200)]
            process.kill()
    assert set(found) == {process.pid}, "a descriptor that goes away hides the others of its process"
