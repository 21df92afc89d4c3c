"""What may be sent: limits, kill switch, paper/live guard, live lock. `broker.risk.guard` combines them.

Nothing is imported here: the journal needs the switch, and the guard needs the journal.
"""
