"""The REST API through DigitalOcean's own client (pydo) and, for headers and bad requests, httpx."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from azure.core.exceptions import HttpResponseError
from pydo import Client

from localcloud.apis.rate_limit import RateLimit, RateLimitError
from localcloud.digitalocean import account_token

REQUEST = {
    "name": "ada-ib-paper-1",
    "region": "nyc1",
    "size": "s-1vcpu-1gb",
    "image": "ubuntu-24-04-x64",
    "tags": ["ibeam"],
}


class Pydo:
    """pydo's calls are blocking: each runs in a thread, so that the API's loop can answer."""

    def __init__(self, endpoint: str, token: str) -> None:
        self.client = Client(token=token, endpoint=endpoint, retry_total=0)

    async def __call__(self, operation: str, *arguments: Any, **options: Any) -> Any:
        group, name = operation.split(".")
        call = getattr(getattr(self.client, group), name)
        return await asyncio.to_thread(call, *arguments, enforce_https=False, **options)


@pytest.fixture
def pydo(api, cloud) -> Pydo:
    return Pydo(api, account_token(cloud))


async def test_a_droplets_life_through_pydo(pydo, account):
    made = await pydo("droplets.create", body=REQUEST)
    number = made["droplet"]["id"]
    assert made["links"]["actions"][0]["href"].startswith("http://127.0.0.1:")
    await account.settled_droplet(number)
    assert (await pydo("droplets.get", number))["droplet"]["status"] == "active"
    action = await pydo("droplet_actions.post", number, body={"type": "power_off"})
    await account.settled_droplet(number)
    assert (await pydo("actions.get", action["action"]["id"]))["action"]["status"] == "completed"
    assert (await pydo("droplets.get", number))["droplet"]["status"] == "off"
    await pydo("droplets.destroy", number)
    assert (await pydo("droplets.get", number))["id"] == "not_found"


async def test_lists_come_in_pages(pydo, account):
    for index in range(3):
        made = await account.create_droplet({**REQUEST, "name": f"ada-ib-paper-{index}"})
        await account.settled_droplet(made["droplet"]["id"])
    page = await pydo("droplets.list", tag_name="ibeam", per_page=2)
    assert (len(page["droplets"]), page["meta"]["total"]) == (2, 3)
    assert "page=2" in page["links"]["pages"]["next"]
    rest = await pydo("droplets.list", tag_name="ibeam", per_page=2, page=2)
    assert len(rest["droplets"]) == 1
    assert "next" not in rest["links"]["pages"]


async def test_firewalls_and_tags_through_pydo(pydo):
    await pydo("tags.create", body={"name": "ibeam"})
    body = {
        "name": "ibeam",
        "tags": ["ibeam"],
        "inbound_rules": [{"protocol": "tcp", "ports": "5000", "sources": {"addresses": ["10.0.0.1"]}}],
        "outbound_rules": [{"protocol": "tcp", "ports": "443", "destinations": {"addresses": ["0.0.0.0/0"]}}],
    }
    number = (await pydo("firewalls.create", body=body))["firewall"]["id"]
    await pydo(
        "firewalls.add_rules",
        number,
        body={"inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"tags": ["ibeam"]}}]},
    )
    assert len((await pydo("firewalls.get", number))["firewall"]["inbound_rules"]) == 2
    await pydo("firewalls.delete", number)
    assert (await pydo("firewalls.list"))["firewalls"] == []
    await pydo("tags.delete", "ibeam")
    assert (await pydo("tags.list"))["tags"] == []


async def test_a_private_snapshot_of_another_account_looks_like_none(pydo):
    assert (await pydo("images.get", 182556282))["id"] == "not_found"
    with pytest.raises(HttpResponseError, match="invalid image") as caught:
        await pydo("droplets.create", body={**REQUEST, "image": 182556282})
    assert caught.value.status_code == 422


async def test_sizes_and_regions_have_what_a_check_before_up_needs(pydo):
    sizes = {size["slug"]: size for size in (await pydo("sizes.list", per_page=200))["sizes"]}
    assert sizes["s-1vcpu-1gb"]["price_monthly"] == 6.0
    regions = {region["slug"]: region["available"] for region in (await pydo("regions.list"))["regions"]}
    assert regions["nyc1"] is True
    assert regions["nyc2"] is False
    assert (await pydo("account.get"))["account"]["droplet_limit"] == 25


async def test_without_the_accounts_token_nothing_is_said(api):
    async with httpx.AsyncClient() as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic abc"}):
            answer = await client.get(f"{api}/v2/droplets", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["id"] == "Unauthorized"
            assert answer.json()["message"] == "Unable to authenticate you"


async def test_errors_and_headers_have_the_public_form(api, cloud):
    headers = {"authorization": f"Bearer {account_token(cloud)}"}
    async with httpx.AsyncClient(headers=headers) as client:
        missing = await client.get(f"{api}/v2/droplets/1")
        assert missing.status_code == 404
        assert missing.json()["request_id"] == missing.headers["x-request-id"]
        assert missing.headers["ratelimit-limit"] == "5000"
        assert missing.headers["ratelimit-remaining"] == "4999"
        assert (await client.get(f"{api}/v2/droplets/one")).status_code == 404
        assert (await client.get(f"{api}/v2/volumes")).status_code == 404
        assert (await client.post(f"{api}/v2/droplets", content="{")).status_code == 400
        assert (await client.post(f"{api}/v2/droplets", json={})).status_code == 422
        assert (await client.delete(f"{api}/v2/droplets")).status_code == 422


async def test_too_many_requests_are_told_when_to_come_back(api, cloud):
    cloud.store.note("digitalocean", "rate_limits", {"minute": 1})
    headers = {"authorization": f"Bearer {account_token(cloud)}"}
    async with httpx.AsyncClient(headers=headers) as client:
        assert (await client.get(f"{api}/v2/account")).status_code == 200
        refused = await client.get(f"{api}/v2/account")
        assert refused.status_code == 429
        assert refused.json()["id"] == "too_many_requests"
        assert int(refused.headers["retry-after"]) > 0


def test_the_hourly_limit_names_no_retry_after_only_the_reset():
    now = [1000.0]
    limit = RateLimit(2, 2, lambda: now[0])
    assert limit.take()["ratelimit-remaining"] == "1"
    now[0] += 100
    limit.take()
    with pytest.raises(RateLimitError) as caught:
        limit.take()
    assert caught.value.headers == {
        "ratelimit-limit": "2",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "4600",
    }
    now[0] = 4600.0
    limit.take()


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 7},
        {"names": "abc"},
        {"size": ["s-1vcpu-1gb"]},
        {"region": {}},
        {"image": []},
        {"tags": "ibeam"},
        {"tags": [7]},
        {"user_data": 7},
        {"ssh_keys": True},
    ],
)
async def test_a_field_of_another_type_is_422(api, cloud, wrong):
    headers = {"authorization": f"Bearer {account_token(cloud)}"}
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.post(f"{api}/v2/droplets", json={**REQUEST, **wrong})
        assert (answer.status_code, answer.json()["id"]) == (422, "unprocessable_entity")
