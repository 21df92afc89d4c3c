"""The HTTP service around the broker package: `python -m broker.service serve`."""
