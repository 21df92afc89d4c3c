"""How many requests an instance of the API service takes at a time, and how many of them may stay open.

An open page holds one request for as long as somebody looks: Cloud Run counts it against the instance's
concurrency, and gives the instance no further request once that is used up. So the app keeps its own, lower
limit (`broker.service.streams`), and what is left is for calls, orders among them.
"""

from __future__ import annotations

#: the longest that Cloud Run lets a request last; a stream ends before, so that none ends as an error
REQUEST_SECONDS = 3600
STREAM_SECONDS = REQUEST_SECONDS - 60
#: of an instance's requests, those that no stream may take. A call takes some 0.3 s where a broker is asked,
#: so 50 at a time are more than 150 a second, and one processor serves fewer.
CALLS = 50
#: Cloud Run's own limit (cloud.google.com/run/docs/about-concurrency)
MOST_CONCURRENT = 1000


def stream_limit(concurrency: int) -> int:
    """How many pages and streams an instance may hold open."""
    return concurrency - CALLS


def pages(concurrency: int, instances: int) -> int:
    """How many pages can be open at one time, over all instances."""
    return max(0, stream_limit(concurrency)) * instances


def concurrency_for(dashboards: int, instances: int) -> int:
    """The least concurrency at which so many pages can be open."""
    return -(-dashboards // instances) + CALLS
