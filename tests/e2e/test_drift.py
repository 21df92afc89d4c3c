"""What Pulumi finds when somebody changed the cloud behind its back."""

import pytest

from tests.e2e.conftest import Service, ask
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack


def changes(stack: LocalStack) -> None:
    """Refresh, and fail if that finds anything that isn't as declared."""
    stack.refresh("--expect-no-changes")


def test_a_refresh_right_after_up_finds_no_drift(stack: LocalStack) -> None:
    changes(stack)


def test_up_without_changes_changes_nothing(stack: LocalStack) -> None:
    stack.up("--expect-no-changes")


def test_a_gateway_that_was_deleted_by_hand_is_found_and_made_again(
    stack: LocalStack, service: Service
) -> None:
    ask(stack, "delete_machine", name="gce/ibkr-gateway")
    service.until_disconnected()
    with pytest.raises(CommandFailed):
        stack.drift()
    stack.refresh()
    stack.up()
    service.until_connected()
    changes(stack)


def test_a_droplet_that_was_deleted_by_hand_is_found_and_made_again(stack: LocalStack) -> None:
    droplets = [m["name"] for m in stack.cloud.machines() if m["name"].startswith("droplet/")]
    assert len(droplets) == 1
    ask(stack, "delete_machine", name=droplets[0])
    stack.refresh()
    stack.up()
    again = [m["name"] for m in stack.cloud.machines() if m["name"].startswith("droplet/")]
    assert len(again) == 1
    assert again != droplets
    changes(stack)
