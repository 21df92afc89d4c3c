"""What a trade costs: IBKR Pro's fixed pricing for US stocks and ETFs.

Source: interactivebrokers.com, Pricing > Commissions > Stocks, "United States, IBKR Pro, Fixed": USD 0.005
per share, minimum USD 1.00 per order, maximum 1 % of the trade's value. An order that trades in several parts
is charged once as a whole. Third-party and regulatory fees are left out.
"""

from __future__ import annotations

PER_SHARE = 0.005
MINIMUM_PER_ORDER = 1.00
MAXIMUM_SHARE_OF_VALUE = 0.01


def order_commission(quantity: float, average_price: float) -> float:
    """Commission in USD of an order of which `quantity` shares traded at `average_price`."""
    if quantity <= 0:
        return 0.0
    charged = max(quantity * PER_SHARE, MINIMUM_PER_ORDER)
    return round(min(charged, MAXIMUM_SHARE_OF_VALUE * quantity * average_price), 6)
