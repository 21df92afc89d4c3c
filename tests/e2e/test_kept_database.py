"""An environment that is taken away and brought back, over a foundation that keeps its database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Service, a_stack, eventually
from tests.e2e.users import LOGIN_SECONDS, User, droplet
from tools import local_config
from tools.local_stack import LocalStack

FOUNDATION = "foundation-local"
ENVIRONMENT = {
    "ibkr:kind": "environment",
    "ibkr:foundationStack": f"organization/ibkr/{FOUNDATION}",
    "ibkr:database.retained": True,
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalStack]:
    """A stack of the test's own over a foundation in the same local cloud."""
    with a_stack(tmp_path / "stack") as made:
        yield made


def bring_up_foundation(stack: LocalStack) -> None:
    """What README has a person do once: the foundation as a stack of its own, with the database in it."""
    with stack._ready():
        config = stack.config.wanted(stack.cloud.network())["config"]
        config["ibkr:kind"] = "foundation"
        config["ibkr:database"]["retained"] = True
        config["ibkr:ibeam"]["users"] = []
        file = stack.config.folder / f"Pulumi.{FOUNDATION}.yaml"
        local_config.store(file, {"config": config})
        stack._ask("stack", "init", "--stack", FOUNDATION, "--no-select")
        secret = ["config", "set", "--stack", FOUNDATION, "--secret", "ibkr:databasePassword"]
        stack._ask(*secret, text="kept/pass word")
        stack._ask("up", "--stack", FOUNDATION, "--yes", "--skip-preview")
    assert "secure" in yaml.safe_load(file.read_text())["config"]["ibkr:databasePassword"]


def test_wanted_accounts_come_back_with_the_environment(own: LocalStack) -> None:
    bring_up_foundation(own)
    for path, value in ENVIRONMENT.items():
        own.config.set(path, value)
    own.up()
    Service(own).until_connected()
    ann = User(own, "ann")
    account, former = (ann.connect().json()[name] for name in ("account_id", "service_id"))
    ann.until(account, "running")

    own.destroy()
    assert own.is_empty()

    own.up()
    assert droplet(own, former) is None, "the environment's run-time droplets went with it"
    found = eventually(
        lambda: ann.do("GET", account).json(),
        lambda told: told["status"] == "running" and told["service_id"] not in (None, former),
        LOGIN_SECONDS,
    )
    assert droplet(own, found["service_id"]) is not None
    assert ann.connect().json()["account_id"] == account, "the same account, under the same key"
