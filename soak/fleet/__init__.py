"""Random lives of per-user droplets: users act, things break, and the cloud's own records are the judge.

    python -m soak --broker fleet --schedules 1000 [--seed S] [--only N]

Real are the reconciler, its database (PostgreSQL), pydo and TLS. DigitalOcean is the local cloud's API; what
its droplets run is `machine`, an agent and a gateway that keep account of every login they were given. Time
is virtual: the database's clock, the cloud's and the processes' are one, which only a schedule moves.
"""
