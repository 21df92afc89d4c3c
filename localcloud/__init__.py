"""The local cloud: stands in for Google Cloud, DigitalOcean, IBKR and Alpaca on one machine.

It really starts what is declared and enforces what the real clouds enforce. It imports nothing
from ``broker``, ``components`` or ``stacks``: what it knows of a stack is what the stack declares.
"""
