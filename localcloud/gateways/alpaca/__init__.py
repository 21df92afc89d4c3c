"""The paper Alpaca: the Trading API v2, the stock data API v2 and the trade_updates stream over the exchange.

What it serves is what alpaca-py's TradingClient, StockHistoricalDataClient and TradingStream ask for on US
stocks. Left out: options, crypto, news, watchlists, auction orders (opg, cls), intraday bars, and the market
data websocket. Shapes and codes follow docs.alpaca.markets; where its words aren't known, a comment says so.
"""
