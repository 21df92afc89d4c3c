"""`make restore STACK=staging`: the database's backups; with BACKUP, that one put back in its place.

The service is closed to the internet first, and stays closed: it knows nothing of what was traded since the
backup, until somebody has compared. What its journal doesn't explain it reports; nothing is sent again.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.local_cloud import CommandFailed
from tools.real_stack import RealStack


def restore(stack: RealStack, backup: str, ask: Callable[[str], str] | None, confirmed: bool) -> None:
    """List the backups, or restore one. Raises CommandFailed."""
    instance = str(stack.outputs().get("database") or "")
    if not instance:
        raise CommandFailed(f"{stack.name} has no database: it was never up.")
    if not backup:
        stack.gcloud("sql", "backups", "list", "--instance", instance, "--limit", "20")
        print(f"One of them: make restore STACK={stack.name} BACKUP=<its ID>. To a minute: docs/runbooks.md.")
        return
    if not backup.isdigit():
        raise CommandFailed(f"BACKUP={backup} is no backup's ID, which is a number: make restore lists them.")
    question = f"Everything in {instance} since backup {backup} is lost. Type the instance's name to go on: "
    if not confirmed and (ask is None or ask(question).strip() != instance):
        raise CommandFailed("Nothing was changed.")
    service = f"{stack.configuration().get('ibkr:namePrefix', 'ibkr')}-api"
    door = ("run", "services", "update", service, "--region", stack.region(), "--quiet", "--ingress")
    stack.gcloud(*door, "internal")
    stack.gcloud("sql", "backups", "restore", backup, "--restore-instance", instance, "--quiet")
    print(
        f"Restored. {service} is closed to the internet. Compare orders and positions with IBKR's own pages\n"
        "(docs/runbooks.md), then open it:\n"
        f"  gcloud {' '.join(door)} all --project {stack.project()}"
    )
