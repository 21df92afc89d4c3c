"""Droplets as the real service treats them, over the real store. That a booted machine does what its
user_data says is tested with the machines; the REST API's own form in test_api.py."""

from __future__ import annotations

import pytest

from localcloud.cloud import CloudError
from localcloud.digitalocean import DROPLET, TAG, Delays, DigitalOcean
from localcloud.digitalocean.parts import VPC
from localcloud.state import Resource

REQUEST = {
    "name": "ada-ib-paper-1",
    "region": "nyc1",
    "size": "s-1vcpu-1gb",
    "image": "ubuntu-24-04-x64",
    "tags": ["stack:local", "ibeam"],
    "user_data": "#cloud-config\n",
}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def made(account: DigitalOcean, **changes: object) -> int:
    answer = await account.create_droplet({**REQUEST, **changes})
    number = int(answer["droplet"]["id"])
    await account.settled_droplet(number)
    return number


async def refusal(account: DigitalOcean, **changes: object) -> CloudError:
    with pytest.raises(CloudError) as caught:
        await account.create_droplet({**REQUEST, **changes})
    return caught.value


async def test_a_create_is_answered_before_there_is_an_address_and_becomes_active(cloud, account):
    answer = await account.create_droplet(REQUEST)
    assert answer["droplet"]["status"] == "new"
    assert answer["droplet"]["networks"]["v4"] == []
    assert answer["links"]["actions"][0]["rel"] == "create"

    droplet = await account.settled_droplet(answer["droplet"]["id"])
    assert droplet["status"] == "active"
    address = droplet["networks"]["v4"][0]
    assert address["type"] == "public"
    assert address["ip_address"].startswith("127.21.")
    assert cloud.machines.specs[f"droplet/{droplet['id']}"]["user_data"] == "#cloud-config\n"
    assert cloud.machines.specs[f"droplet/{droplet['id']}"]["address"] == address["ip_address"]


async def test_a_droplet_is_not_found_right_after_its_create_and_listed_later_still(cloud):
    clock = Clock()
    account = DigitalOcean(cloud, Delays(visible=1, listed=5, create=0), clock)
    number = (await account.create_droplet(REQUEST))["droplet"]["id"]
    with pytest.raises(CloudError) as caught:
        account.get_droplet(number)
    assert caught.value.status == 404
    clock.now += 1
    assert account.get_droplet(number)["id"] == number
    assert account.list_droplets(tag_name="ibeam") == [], "a program that lists right away must not conclude"
    clock.now += 4
    assert [droplet["id"] for droplet in account.list_droplets(tag_name="ibeam")] == [number]
    await account.settled_droplet(number)


async def test_names_are_not_unique(account):
    first, second = await made(account), await made(account)
    assert [droplet["id"] for droplet in account.list_droplets(name="ada-ib-paper-1")] == [first, second]


async def test_lists_by_tag_or_by_exact_name_but_not_both(account):
    mine = await made(account)
    await made(account, name="bob-ib-paper-1", tags=["stack:other"])
    assert [droplet["id"] for droplet in account.list_droplets(tag_name="stack:local")] == [mine]
    assert account.list_droplets(name="ada-ib") == []
    with pytest.raises(CloudError):
        account.list_droplets(tag_name="ibeam", name="ada-ib-paper-1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": "s-9vcpu-1gb"}, "invalid size"),
        ({"region": "mars1"}, "invalid region"),
        ({"region": "nyc2"}, "Region is not available"),
        ({"image": "ubuntu-99"}, "invalid image"),
        ({"image": 182556282}, "invalid image"),
        ({"name": "ada_ib"}, "valid hostname characters"),
        ({"name": None}, "valid hostname characters"),
        ({"tags": ["a b"]}, "tags may contain"),
        ({"user_data": "x" * (64 * 1024 + 1)}, "too large"),
        ({"user_data": "echo \N{ROCKET}"}, "ASCII"),
        ({"ssh_keys": [12345]}, "12345 are invalid key identifiers"),
        ({"vpc_uuid": "nowhere"}, "VPC"),
    ],
)
async def test_what_the_real_api_refuses_is_refused_with_422(cloud, account, changes, words):
    error = await refusal(account, **changes)
    assert (error.status, error.reason) == (422, "unprocessable_entity")
    assert words in error.message
    assert cloud.store.all(DROPLET) == []


async def test_an_account_has_a_droplet_limit(account):
    account.droplets.limit(1)
    await made(account)
    assert "exceed your droplet limit" in (await refusal(account)).message


async def test_a_snapshot_of_ones_own_can_be_started_elsewhere_only_after_a_transfer(account):
    number = await made(account)
    await account.act_on_droplet(number, {"type": "snapshot", "name": "golden"})
    await account.settled_droplet(number)
    image = next(iter(account.cloud.store.notes("digitalocean/images").values()))
    assert image["name"] == "golden"
    copy = await made(account, image=image["id"])
    assert account.get_droplet(copy)["image"]["id"] == image["id"]
    assert "transfer it to this region" in (await refusal(account, image=image["id"], region="fra1")).message


async def test_only_one_action_at_a_time(cloud):
    account = DigitalOcean(cloud, Delays(visible=0, listed=0, create=60))
    number = (await account.create_droplet(REQUEST))["droplet"]["id"]
    for attempt in (account.act_on_droplet(number, {"type": "power_off"}), account.delete_droplet(number)):
        with pytest.raises(CloudError) as caught:
            await attempt
        assert caught.value.status == 422
        assert caught.value.message == "Droplet already has a pending event."


async def test_a_droplet_that_is_off_keeps_its_address(account):
    number = await made(account)
    before = account.get_droplet(number)["networks"]
    action = await account.act_on_droplet(number, {"type": "shutdown"})
    assert action["status"] == "in-progress"
    off = await account.settled_droplet(number)
    assert off["status"] == "off"
    assert account.droplets.actions.get(action["id"])["status"] == "completed"
    with pytest.raises(CloudError):
        await account.act_on_droplet(number, {"type": "power_off"})
    await account.act_on_droplet(number, {"type": "power_on"})
    on = await account.settled_droplet(number)
    assert (on["status"], on["networks"]) == ("active", before)


async def test_a_resize_needs_the_droplet_to_be_off(account):
    number = await made(account)
    with pytest.raises(CloudError, match="power it off"):
        await account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-2gb"})
    await account.act_on_droplet(number, {"type": "power_off"})
    await account.settled_droplet(number)
    await account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-2gb"})
    resized = await account.settled_droplet(number)
    assert (resized["size_slug"], resized["memory"]) == ("s-1vcpu-2gb", 2048)


async def test_a_machine_that_does_not_start_is_an_errored_action(cloud, account):
    async def broken(name, kind, spec):
        raise CloudError(500, "no room")

    cloud.machines.boot = broken
    answer = await account.create_droplet(REQUEST)
    droplet = await account.settled_droplet(answer["droplet"]["id"])
    assert droplet["status"] == "new"
    assert account.droplets.actions.of(droplet["id"])[0]["status"] == "errored"


async def test_delete_takes_machine_address_and_record_away(cloud, account):
    number = await made(account)
    await account.delete_droplet(number)
    assert cloud.store.get(DROPLET, str(number)) is None
    assert ("delete", f"droplet/{number}") in cloud.machines.log
    assert cloud.addresses.taken() == {}
    with pytest.raises(CloudError) as caught:
        await account.delete_droplet(number)
    assert (caught.value.status, caught.value.reason) == (404, "not_found")


async def test_delete_by_tag_takes_only_what_carries_the_tag(account):
    await made(account, tags=["manager:service"])
    kept = await made(account, tags=["manager:pulumi"])
    await account.droplets.delete_by_tag("manager:service")
    await account.droplets.delete_by_tag("manager:service")
    assert [droplet["id"] for droplet in account.list_droplets()] == [kept]


async def test_a_droplet_whose_machine_was_deleted_by_hand_is_gone(cloud, account):
    number = await made(account)
    await cloud.machines.delete(f"droplet/{number}")
    with pytest.raises(CloudError) as caught:
        account.get_droplet(number)
    assert caught.value.status == 404


async def test_a_create_that_a_restart_interrupted_is_finished_afterwards(cloud, monkeypatch):
    before = DigitalOcean(cloud, Delays(create=60))
    number = (await before.create_droplet(REQUEST))["droplet"]["id"]
    monkeypatch.setattr("localcloud.digitalocean.actions._THIS_PROCESS", "the next one")
    after = DigitalOcean(cloud, Delays(visible=0, create=0))
    await after.take_up()
    assert (await after.settled_droplet(number))["status"] == "active"


async def test_a_removal_that_a_restart_interrupted_is_finished_afterwards(cloud, account):
    number = await made(account)
    cloud.store.note(f"digitalocean/droplet/{number}", "deleting", True)
    await DigitalOcean(cloud).take_up()
    assert cloud.store.all(DROPLET) == []


async def test_a_droplet_in_a_vpc_has_a_private_address_too(cloud, account):
    cloud.store.put(Resource(VPC, "vpc-1", {"ipRange": "127.21.10.0/24"}, {"ipRange": "127.21.10.0/24"}))
    number = await made(account, vpc_uuid="vpc-1")
    kinds = {net["type"]: net["ip_address"] for net in account.get_droplet(number)["networks"]["v4"]}
    assert kinds["private"].startswith("127.21.10.")


async def test_a_droplets_tags_come_into_being_with_it(cloud, account):
    number = await made(account)
    assert {tag.id for tag in cloud.store.all(TAG)} == {"ibeam", "stack:local"}
    assert account.tags.get("ibeam")["resources"]["droplets"]["count"] == 1
    account.tags.delete("ibeam")
    assert account.get_droplet(number)["tags"] == ["stack:local"]
    assert cloud.machines.specs[f"droplet/{number}"]["tags"] == ["stack:local"]
