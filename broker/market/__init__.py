"""Market hours and, later, quotes from sources other than the broker."""
