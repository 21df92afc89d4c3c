"""DigitalOcean's REST API v2, as far as droplets, firewalls, tags, images, sizes, regions and actions go.

Mounted at /digitalocean of the local cloud's API server, so a client's endpoint is `<api_url>/digitalocean`.
Answers, statuses and headers are those of the public description (digitalocean/openapi); what else the real
API has answers 404 here.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localcloud.apis.rate_limit import RateLimit
from localcloud.cloud import Cloud, CloudError
from localcloud.digitalocean import DigitalOcean, Json, account_token, catalog
from localcloud.digitalocean.checks import DROPLET_LIMIT, check_forms, not_found, unprocessable
from localcloud.digitalocean.faults import take_fault, words_of
from localcloud.digitalocean.parts import IMAGES, settings

PER_PAGE, PER_PAGE_MOST = 20, 200
REQUESTS_PER_HOUR, REQUESTS_PER_MINUTE = 5000, 250

Handler = Callable[["Api", Request], Awaitable[Response]]


class Api:
    """The API of one account: who may call it, how often, and what over."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.account = DigitalOcean.of(cloud)
        self.limits = RateLimit(REQUESTS_PER_HOUR, REQUESTS_PER_MINUTE)

    async def answer(self, request: Request, handler: Handler) -> Response:
        """Checks the token and the limits, then lets the handler answer; refusals in the API's form."""
        request_id = str(uuid.uuid4())
        headers = {"x-request-id": request_id}
        try:
            self._authenticate(request)
            allowance = settings(self.cloud).get("rate_limits") or {}
            headers |= self.limits.take(allowance.get("hour"), allowance.get("minute"))
            response = await self._with_faults(request, handler)
        except CloudError as error:
            response = _refusal(error, request_id)
            headers |= getattr(error, "headers", {})
        response.headers.update(headers)
        return response

    async def _with_faults(self, request: Request, handler: Handler) -> Response:
        path = "/v2" + request.url.path.rpartition("/v2")[2]
        fault = take_fault(self.cloud, f"{request.method} {path}")
        if fault is None:
            return await handler(self, request)
        response = await handler(self, request) if fault.get("after") else None
        await asyncio.sleep(float(fault.get("seconds", 0)))
        if fault.get("status"):
            reason, message = words_of(fault)
            raise CloudError(int(fault["status"]), message, reason)
        return response or await handler(self, request)

    def _authenticate(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        expected = account_token(self.cloud)
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected.encode()):
            raise CloudError(401, "Unable to authenticate you", "Unauthorized")


def _refusal(error: CloudError, request_id: str) -> Response:
    document = {"id": error.reason or "error", "message": error.message, "request_id": request_id}
    return JSONResponse(document, status_code=error.status)


async def _body(request: Request) -> Json:
    raw = await request.body()
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        raise CloudError(400, "The request body is not valid JSON.", "bad_request") from None
    if not isinstance(body, dict):
        raise CloudError(400, "The request body must be a JSON object.", "bad_request")
    check_forms(body)
    return body


def _number(request: Request, name: str) -> str:
    value = str(request.path_params[name])
    if not value.isdigit():
        raise not_found()
    return value


def _page(request: Request, key: str, items: list[Json]) -> Response:
    """One page: `{key: [...], "links": {"pages": {...}}, "meta": {"total": N}}`."""
    try:
        number = max(1, int(request.query_params.get("page", "1")))
        size = min(PER_PAGE_MOST, max(1, int(request.query_params.get("per_page", str(PER_PAGE)))))
    except ValueError:
        raise CloudError(400, "page and per_page must be numbers.", "bad_request") from None
    last = max(1, -(-len(items) // size))
    pages: dict[str, int] = {}
    if number > 1:
        pages |= {"first": 1, "prev": min(number - 1, last)}
    if number < last:
        pages |= {"next": number + 1, "last": last}
    links = {name: str(request.url.include_query_params(page=target)) for name, target in pages.items()}
    shown = items[(number - 1) * size : number * size]
    return JSONResponse(
        {key: shown, "links": {"pages": links} if links else {}, "meta": {"total": len(items)}}
    )


def _nothing() -> Response:
    return Response(status_code=204)


async def get_account(api: Api, request: Request) -> Response:
    """GET /v2/account."""
    limit = settings(api.cloud).get("droplet_limit", DROPLET_LIMIT)
    account = {
        "droplet_limit": limit,
        "floating_ip_limit": 3,
        "reserved_ip_limit": 3,
        "volume_limit": 10,
        "email": "local@localhost",
        "name": "Local account",
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, "localcloud/digitalocean")),
        "email_verified": True,
        "status": "active",
        "status_message": "",
        "team": {"uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, "localcloud/team")), "name": "Local"},
    }
    return JSONResponse({"account": account})


async def list_droplets(api: Api, request: Request) -> Response:
    """GET /v2/droplets."""
    query = request.query_params
    return _page(request, "droplets", api.account.list_droplets(query.get("tag_name"), query.get("name")))


async def create_droplets(api: Api, request: Request) -> Response:
    """POST /v2/droplets."""
    made = await api.account.create_droplet(await _body(request))
    for action in made["links"]["actions"]:
        action["href"] = f"{str(request.base_url).rstrip('/')}{action['href']}"
    return JSONResponse(made, status_code=202)


async def delete_droplets_by_tag(api: Api, request: Request) -> Response:
    """DELETE /v2/droplets."""
    tag = request.query_params.get("tag_name")
    if not tag:
        raise unprocessable("tag_name is needed")
    await api.account.droplets.delete_by_tag(tag)
    return _nothing()


async def get_droplet(api: Api, request: Request) -> Response:
    """GET /v2/droplets/{droplet_id}."""
    return JSONResponse({"droplet": api.account.get_droplet(_number(request, "droplet_id"))})


async def delete_droplet(api: Api, request: Request) -> Response:
    """DELETE /v2/droplets/{droplet_id}."""
    await api.account.delete_droplet(_number(request, "droplet_id"))
    return _nothing()


async def list_droplet_actions(api: Api, request: Request) -> Response:
    """GET /v2/droplets/{droplet_id}/actions."""
    droplet = api.account.droplets.resource(_number(request, "droplet_id"))
    return _page(request, "actions", api.account.droplets.actions.of(droplet.id))


async def create_droplet_action(api: Api, request: Request) -> Response:
    """POST /v2/droplets/{droplet_id}/actions."""
    action = await api.account.act_on_droplet(_number(request, "droplet_id"), await _body(request))
    return JSONResponse({"action": action}, status_code=201)


async def create_actions_by_tag(api: Api, request: Request) -> Response:
    """POST /v2/droplets/actions."""
    tag, body = request.query_params.get("tag_name", ""), await _body(request)
    tagged = api.account.list_droplets(tag_name=tag)
    actions = [await api.account.act_on_droplet(droplet["id"], body) for droplet in tagged]
    return JSONResponse({"actions": actions}, status_code=201)


async def get_droplet_action(api: Api, request: Request) -> Response:
    """GET /v2/droplets/{droplet_id}/actions/{action_id}."""
    action = api.account.droplets.actions.get(_number(request, "action_id"))
    if action["resource_id"] != int(_number(request, "droplet_id")):
        raise not_found()
    return JSONResponse({"action": action})


async def get_action(api: Api, request: Request) -> Response:
    """GET /v2/actions/{action_id}."""
    return JSONResponse({"action": api.account.droplets.actions.get(_number(request, "action_id"))})


async def list_actions(api: Api, request: Request) -> Response:
    """GET /v2/actions."""
    return _page(request, "actions", api.account.droplets.actions.all())


async def list_droplet_firewalls(api: Api, request: Request) -> Response:
    """GET /v2/droplets/{droplet_id}/firewalls."""
    droplet = api.account.droplets.resource(_number(request, "droplet_id"))
    tags = set(droplet.outputs["tags"])
    applying = [
        firewall
        for firewall in api.account.firewalls.all()
        if int(droplet.id) in firewall["droplet_ids"] or tags & set(firewall["tags"])
    ]
    return _page(request, "firewalls", applying)


async def list_firewalls(api: Api, request: Request) -> Response:
    """GET /v2/firewalls."""
    return _page(request, "firewalls", api.account.firewalls.all())


async def create_firewall(api: Api, request: Request) -> Response:
    """POST /v2/firewalls."""
    return JSONResponse({"firewall": api.account.firewalls.create(await _body(request))}, status_code=202)


async def get_firewall(api: Api, request: Request) -> Response:
    """GET /v2/firewalls/{firewall_id}."""
    return JSONResponse({"firewall": api.account.firewalls.get(request.path_params["firewall_id"])})


async def update_firewall(api: Api, request: Request) -> Response:
    """PUT /v2/firewalls/{firewall_id}."""
    updated = api.account.firewalls.update(request.path_params["firewall_id"], await _body(request))
    return JSONResponse({"firewall": updated})


async def delete_firewall(api: Api, request: Request) -> Response:
    """DELETE /v2/firewalls/{firewall_id}."""
    api.account.firewalls.delete(request.path_params["firewall_id"])
    return _nothing()


async def edit_firewall(api: Api, request: Request) -> Response:
    """POST adds, DELETE takes away: `droplet_ids`, `tags`, or rules of both directions."""
    body, present = await _body(request), request.method == "POST"
    parts = {"droplets": ["droplet_ids"], "tags": ["tags"], "rules": ["inbound_rules", "outbound_rules"]}
    if request.path_params["part"] not in parts:
        raise not_found()
    given = [part for part in parts[request.path_params["part"]] if body.get(part)]
    if not given:
        raise unprocessable("nothing to add or remove was given")
    for part in given:
        api.account.firewalls.edit(request.path_params["firewall_id"], part, body[part], present)
    return _nothing()


async def list_tags(api: Api, request: Request) -> Response:
    """GET /v2/tags."""
    return _page(request, "tags", api.account.tags.all())


async def create_tag(api: Api, request: Request) -> Response:
    """POST /v2/tags."""
    return JSONResponse({"tag": api.account.tags.ensure((await _body(request)).get("name"))}, status_code=201)


async def get_tag(api: Api, request: Request) -> Response:
    """GET /v2/tags/{tag}."""
    return JSONResponse({"tag": api.account.tags.get(request.path_params["tag"])})


async def delete_tag(api: Api, request: Request) -> Response:
    """DELETE /v2/tags/{tag}."""
    api.account.tags.delete(request.path_params["tag"])
    return _nothing()


async def tag_resources(api: Api, request: Request) -> Response:
    """POST tags, DELETE untags: `{"resources": [{"resource_id": "1", "resource_type": "droplet"}]}`."""
    name = api.account.tags.get(request.path_params["tag"])["name"]
    for resource in (await _body(request)).get("resources") or []:
        if not isinstance(resource, dict) or resource.get("resource_type") != "droplet":
            raise unprocessable("only droplets can be tagged here")
        api.account.droplets.tag(str(resource.get("resource_id")), name, present=request.method == "POST")
    return _nothing()


async def list_images(api: Api, request: Request) -> Response:
    """GET /v2/images."""
    private = {"true": True, "false": False}.get(request.query_params.get("private", ""))
    if request.query_params.get("type") == "distribution":
        private = False
    return _page(request, "images", catalog.images(api.cloud, private))


async def get_image(api: Api, request: Request) -> Response:
    """GET /v2/images/{image}."""
    image = catalog.find_image(api.cloud, request.path_params["image"])
    if image is None:
        raise not_found()
    return JSONResponse({"image": image})


async def delete_image(api: Api, request: Request) -> Response:
    """DELETE /v2/images/{image}."""
    number = request.path_params["image"]
    if number not in api.cloud.store.notes(IMAGES):
        raise not_found()
    api.cloud.store.forget(IMAGES, number)
    return _nothing()


async def list_sizes(api: Api, request: Request) -> Response:
    """GET /v2/sizes."""
    return _page(request, "sizes", catalog.sizes())


async def list_regions(api: Api, request: Request) -> Response:
    """GET /v2/regions."""
    return _page(request, "regions", catalog.regions())


async def unknown(api: Api, request: Request) -> Response:
    """Any other path."""
    raise not_found()


_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/v2/account", get_account),
    ("GET", "/v2/droplets", list_droplets),
    ("POST", "/v2/droplets", create_droplets),
    ("DELETE", "/v2/droplets", delete_droplets_by_tag),
    ("POST", "/v2/droplets/actions", create_actions_by_tag),
    ("GET", "/v2/droplets/{droplet_id}", get_droplet),
    ("DELETE", "/v2/droplets/{droplet_id}", delete_droplet),
    ("GET", "/v2/droplets/{droplet_id}/actions", list_droplet_actions),
    ("POST", "/v2/droplets/{droplet_id}/actions", create_droplet_action),
    ("GET", "/v2/droplets/{droplet_id}/actions/{action_id}", get_droplet_action),
    ("GET", "/v2/droplets/{droplet_id}/firewalls", list_droplet_firewalls),
    ("GET", "/v2/actions", list_actions),
    ("GET", "/v2/actions/{action_id}", get_action),
    ("GET", "/v2/firewalls", list_firewalls),
    ("POST", "/v2/firewalls", create_firewall),
    ("GET", "/v2/firewalls/{firewall_id}", get_firewall),
    ("PUT", "/v2/firewalls/{firewall_id}", update_firewall),
    ("DELETE", "/v2/firewalls/{firewall_id}", delete_firewall),
    ("POST", "/v2/firewalls/{firewall_id}/{part}", edit_firewall),
    ("DELETE", "/v2/firewalls/{firewall_id}/{part}", edit_firewall),
    ("GET", "/v2/tags", list_tags),
    ("POST", "/v2/tags", create_tag),
    ("GET", "/v2/tags/{tag}", get_tag),
    ("DELETE", "/v2/tags/{tag}", delete_tag),
    ("POST", "/v2/tags/{tag}/resources", tag_resources),
    ("DELETE", "/v2/tags/{tag}/resources", tag_resources),
    ("GET", "/v2/images", list_images),
    ("GET", "/v2/images/{image}", get_image),
    ("DELETE", "/v2/images/{image}", delete_image),
    ("GET", "/v2/sizes", list_sizes),
    ("GET", "/v2/regions", list_regions),
]
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def routes(cloud: Cloud) -> list[BaseRoute]:
    """The API's routes, to be mounted at /digitalocean: one `Api` (limits, tasks) for all of them."""
    api = Api(cloud)

    def route(path: str, methods: list[str], handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            return await api.answer(request, handler)

        return Route(path, endpoint, methods=methods)

    found: list[BaseRoute] = [route(path, [method], handler) for method, path, handler in _ROUTES]
    return [*found, route("/{rest:path}", _METHODS, unknown)]


def endpoint_settings(cloud: Cloud) -> dict[str, str]:
    """What a client needs: `DIGITALOCEAN_API_URL` and `DIGITALOCEAN_TOKEN`."""
    return {
        "DIGITALOCEAN_API_URL": f"{cloud.settings.api_url}/digitalocean",
        "DIGITALOCEAN_TOKEN": account_token(cloud),
    }
