"""What a script of a machine really calls when it calls systemctl, docker, iptables ...

Asks the machine, over the socket in MACHINE_CONTROL, to do it, and ends as the real command would.
Run as a file, without the package: it must start fast.
"""

import json
import os
import socket
import sys


def main() -> int:
    """Ask, print the answer, and return its exit status."""
    reads = any(argument in ("-", "@-") for argument in sys.argv[2:])
    request = {
        "argv": sys.argv[1:],
        "env": dict(os.environ),
        "stdin": sys.stdin.read() if reads else "",
    }
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(os.environ["MACHINE_CONTROL"])
        with control.makefile("rwb") as channel:
            channel.write(json.dumps(request).encode() + b"\n")
            channel.flush()
            answer = json.loads(channel.readline())
    if answer.get("exec"):
        os.execvp(answer["exec"][0], answer["exec"])
    sys.stdout.write(answer["stdout"])
    sys.stderr.write(answer["stderr"])
    return int(answer["code"])


if __name__ == "__main__":
    sys.exit(main())
