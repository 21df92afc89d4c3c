"""Front ends of the paper exchange, each speaking a broker's real wire protocol."""
