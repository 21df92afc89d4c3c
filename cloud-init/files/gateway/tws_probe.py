"""One look at the gateway's API as a client has it: the handshake, then a question that only IBKR can answer.

An open port proves nothing (socat's is open with the gateway dead), and neither does the handshake alone: the
gateway answers it without IBKR. A search for a symbol is not kept by the gateway, so each one goes to IBKR's
servers and back. Wire format: TWS API, EClient and EDecoder.
"""

import struct
import time
from collections import namedtuple

import local_port

CLIENT_ID = 8999  # one of its own: a connection with an id that is in use is refused (326)
OLDEST, NEWEST = 157, 176
START_API, SEARCH_SYMBOLS = "71", "81"
ERROR, NEXT_VALID_ID, SYMBOL_SAMPLES = "4", "9", "79"
LINK_LOST, LINK_BACK = {"1100", "2110"}, {"1101", "1102"}
REQUEST = "1"
# Each is real, and they take turns: nothing on the way has a reason to remember the answer.
PATTERNS = ("IBM", "AAPL", "MSFT", "KO", "GE", "F", "T", "XOM", "PG", "WMT")
LONGEST_MESSAGE = 4 * 1024 * 1024

Look = namedtuple("Look", "listening handshake answered link_lost detail")


def look(port, patience=20.0, turn=0):
    """What the API does within `patience` seconds.

    `listening`: the port takes connections; `handshake`: the gateway works; `answered`: IBKR answered a
    question through it; `link_lost`: the gateway itself says that IBKR is out of reach (1100, 2110).
    """
    deadline = time.monotonic() + patience
    try:
        connection = local_port.connect(port, patience)
    except OSError as error:
        return Look(False, False, False, False, f"no connection: {error}")
    handshake = link_lost = False
    with connection:
        try:
            send(connection, b"v%d..%d" % (OLDEST, NEWEST), b"API\0")
            reading = connection.makefile("rb")
            receive(connection, reading, deadline)
            send(connection, fields(START_API, "2", str(CLIENT_ID), ""))
            asked = False
            while True:
                message = receive(connection, reading, deadline)
                kind = message[0]
                if kind == NEXT_VALID_ID:
                    handshake = True
                    if not asked:
                        send(connection, fields(SEARCH_SYMBOLS, REQUEST, PATTERNS[turn % len(PATTERNS)]))
                        asked = True
                elif kind == SYMBOL_SAMPLES and message[1] == REQUEST:
                    return Look(True, True, True, link_lost, "answered")
                elif kind == ERROR:
                    code, text = message[3], message[4]
                    link_lost = (link_lost or code in LINK_LOST) and code not in LINK_BACK
                    if message[2] == REQUEST:
                        return Look(True, True, False, link_lost, f"error {code} {text[:200]}")
        except (OSError, ValueError, IndexError) as error:
            said = "after the handshake" if handshake else "before the handshake"
            return Look(True, handshake, False, link_lost, f"{said}: {error or type(error).__name__}")


def fields(*values):
    """A message's payload."""
    return b"".join(value.encode("ascii") + b"\0" for value in values)


def send(connection, payload, prefix=b""):
    connection.sendall(prefix + struct.pack("!I", len(payload)) + payload)


def receive(connection, reading, deadline):
    """The next message's fields. Raises OSError, at the deadline too, and ValueError for what is none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    connection.settimeout(left)
    head = reading.read(4)
    if len(head) < 4:
        raise ConnectionError("the gateway closed the connection")
    (length,) = struct.unpack("!I", head)
    if not 0 < length <= LONGEST_MESSAGE:
        raise ValueError("not a message of the TWS API")
    return reading.read(length).decode("utf-8", "replace").split("\0")
