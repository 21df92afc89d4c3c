"""The same numbered cases for every broker: what the interface promises, whoever is behind it.

    pytest tests/conformance                      all brokers, on the paper exchange, over the real protocols
    pytest tests/conformance -k "C012 and ibkr"   one case, one broker

Against a real paper account, with the broker's ordinary settings in the environment:

    CONFORMANCE_BROKER=ibkr IBKR_GATEWAY_PORT=4002 IBKR_TRADING_MODE=paper pytest tests/conformance
    CONFORMANCE_BROKER=alpaca ALPACA_API_KEY=... ALPACA_SECRET_KEY=... pytest tests/conformance

Cases that look into the exchange's own book, or move its prices, are left out then, and named at the
end of the run. The others place resting orders far from the price (`CONFORMANCE_SYMBOL`, by default
AAPL) and cancel them; none of them is meant to trade. A live account is refused.

A case never skips a broker silently: what its `capabilities` don't name must raise
`UnsupportedOperation`, or `InvalidRequest` for an order type or time in force, with nothing sent.
"""
