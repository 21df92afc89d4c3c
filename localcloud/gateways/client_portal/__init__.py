"""A paper Client Portal gateway with IBeam around it: HTTPS in front, the paper exchange behind.

What it owns: the API as clients see it (answers, habits, limits), the login from injected credentials,
IBeam's maintenance and health server. What it leaves out: the web pages, several accounts' allocation,
options, futures, and everything an order can be besides market, limit, stop and stop-limit.

Written from IBKR's API description (OpenAPI 2.29), ibind 0.2.2, IBeam 0.5.12 and public reports.
"""
