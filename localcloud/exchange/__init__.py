"""The paper exchange.

A market, accounts and matching behind a JSON-lines link; the gateways speak the real protocols.
"""
