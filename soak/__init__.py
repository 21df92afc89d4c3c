"""Random faults against every broker, judged by the exchange's own book: `make soak`.

    python -m soak --schedules 1000 --broker ibkr [--seed S] [--only N]

A schedule is a seeded sequence of orders, crashes and faults. `world` carries it out and counts
what must never happen: an order twice in the book, a fill that the journal doesn't have, an order
reported dead that lives, an empty answer while something is held. Everything runs on loopback.
"""
