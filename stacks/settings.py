"""A stack's configuration as one typed, validated model, read once before anything is declared.

`parse` is a pure function of the configuration's text; `read` takes that text from the engine. Either
gives `Settings`, with which the rest of the program needs no further check, or raises `SettingsError`
that names every wrong key at once, with its value (never a secret's) and what to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, get_args

import pulumi
from pydantic import BaseModel, SecretStr, ValidationError

from stacks import catalog
from stacks.problems import Problem, SettingsError, did_you_mean, shown
from stacks.relations import CHECKS
from stacks.section import Section
from stacks.sections import API_PORTS, Config, Credentials, IBeamUser
from stacks.values import Region, TradingMode, other_mode

PROJECT = "ibkr"
LOCAL_PROJECT = "local"
_PROVIDER_KEYS = {
    "gcp": {
        "project",
        "region",
        "zone",
        "impersonateServiceAccount",
        "userProjectOverride",
        "billingProject",
    },
    "digitalocean": {"token", "apiEndpoint", "requestsPerSecond", "httpRetryMax"},
    "command": set[str](),
}
# Of a key that holds secrets, what may be shown all the same.
_HARMLESS = {"name", "environment", "index", "region", "size", "image", "users", "holdCredentials"}
_PROJECT_RULE = "use a Google Cloud project id: 6 to 30 lower-case letters, digits and hyphens"


class Cloud(Section):
    """The keys of the providers that the program reads itself."""

    project: str
    region: Region = "us-west1"


class Settings(Config):
    """Everything a stack's declaration reads. Frozen, valid, and without Outputs."""

    stack: str
    project: str
    region: str
    has_digitalocean_login: bool

    @property
    def local(self) -> bool:
        """Whether the local cloud takes the place of the real ones."""
        return self.project == LOCAL_PROJECT

    @property
    def declares_foundation(self) -> bool:
        return self.kind in ("foundation", "both")

    @property
    def declares_environment(self) -> bool:
        return self.kind in ("environment", "both")

    @property
    def declares_database(self) -> bool:
        """Whether this stack, and not the one beside it, declares the database."""
        return self.kind == "both" or self.database.retained == (self.kind == "foundation")

    @property
    def uses_digitalocean(self) -> bool:
        return self.declares_environment and bool(self.ibeam.users or self.fleet.enabled)

    @property
    def runs_fleet(self) -> bool:
        """Whether the service makes droplets at run time."""
        return self.declares_environment and self.fleet.enabled

    @property
    def service_instances(self) -> int:
        """How many instances of the service there may be: one, where a broker's connection lives in it."""
        return 1 if self.broker_type in ("ibkr", "ibeam") else self.api.max_instances

    @property
    def checks_uptime(self) -> bool:
        """Whether Google looks at the service from outside."""
        wanted = self.monitoring.uptime_check
        return self.api.public if wanted is None else wanted

    @property
    def fleet_image(self) -> str:
        """What run-time droplets are made of."""
        return self.fleet.image or self.ibeam.image

    @property
    def default_user(self) -> IBeamUser | None:
        """Whose droplet the default connection of `brokerType: ibeam` is."""
        return self.ibeam.default_user

    @property
    def api_port(self) -> int:
        """The port that the gateway serves: 4001 live, 4002 paper."""
        return self.gateway.port or API_PORTS[self.trading_mode]

    @property
    def runs_both_gateways(self) -> bool:
        """Whether paper and live run side by side."""
        return self.gateway.mode == "both"

    @property
    def second_api_port(self) -> int | None:
        """The port of the gateway that isn't the trading mode's, where there are two."""
        return API_PORTS[other_mode(self.trading_mode)] if self.runs_both_gateways else None

    @property
    def gateway_logins(self) -> dict[TradingMode, tuple[str, Credentials | None]]:
        """Of each gateway that runs, its login and the key that it is set under."""
        if self.runs_both_gateways:
            return {
                "paper": ("ibkr:paperCredentials", self.paper_credentials),
                "live": ("ibkr:liveCredentials", self.live_credentials),
            }
        return {self.trading_mode: ("ibkr:gatewayCredentials", self.gateway_credentials)}

    @property
    def connector_name(self) -> str:
        return self.network.connector_name or f"{self.name_prefix}-connector"

    @property
    def network_name(self) -> str:
        return self.network.name or self.name_prefix


def read() -> Settings:
    """The running program's settings, from what the engine passes to it.

    Raises SettingsError; nothing has been registered by then.
    """
    config = {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()}
    secret = set(pulumi.runtime.config.get_config_secret_keys_env())
    secret |= pulumi.runtime.config._SECRET_KEYS.get()
    return parse(pulumi.get_stack(), config, secret_keys=secret, environment=os.environ)


def parse(
    stack: str,
    config: Mapping[str, str],
    *,
    secret_keys: set[str] | frozenset[str] = frozenset(),
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from configuration as the engine has it: full keys, and objects as JSON text.

    `environment` is the process's, of which only the presence of DIGITALOCEAN_TOKEN matters.
    Raises SettingsError with every problem found.
    """
    raw, problems = _sort_keys(config)
    cloud, cloud_problems = _cloud(raw)
    model, model_problems = _validate(raw[PROJECT], secret_keys)
    problems += cloud_problems + model_problems
    has_login = "token" in raw["digitalocean"] or bool((environment or {}).get("DIGITALOCEAN_TOKEN"))
    settings = Settings.model_construct(
        **{name: getattr(model, name) for name in Config.model_fields},
        stack=stack,
        project=cloud.project,
        region=cloud.region,
        has_digitalocean_login=has_login,
    )
    wrong = {problem.key for problem in problems}
    for check in CHECKS:
        for found in check(settings):
            if not _covered(found.key, wrong) and not any(_covered(key, wrong) for key in found.because):
                problems.append(found)
    if problems:
        raise SettingsError(stack, problems)
    return settings


def _covered(key: str, wrong: set[str]) -> bool:
    """Whether this key or a part of it was already reported: then it holds a default, not its value."""
    return any(
        key == other or other.startswith((f"{key}.", f"{key}[")) or key.startswith(f"{other}.")
        for other in wrong
    )


def _sort_keys(config: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Keys by namespace, objects decoded; and a problem for each that nobody reads."""
    raw: dict[str, dict[str, Any]] = {PROJECT: {}, **{name: {} for name in _PROVIDER_KEYS}}
    problems = []
    for key, text in sorted(config.items()):
        namespace, _, name = key.partition(":")
        if namespace == "pulumi":
            continue
        if namespace not in raw:
            problems.append(Problem(key, "", f"nobody reads this{did_you_mean(namespace, raw)}"))
        elif namespace != PROJECT and name not in _PROVIDER_KEYS[namespace]:
            hint = did_you_mean(name, _PROVIDER_KEYS[namespace])
            problems.append(Problem(key, "", f"isn't a key that this program knows{hint}"))
        else:
            raw[namespace][name] = _decode(text)
    return raw, problems


def _decode(text: Any) -> Any:
    if isinstance(text, str) and text[:1] in "{[" and text:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _cloud(raw: dict[str, dict[str, Any]]) -> tuple[Cloud, list[Problem]]:
    known = {name: value for name, value in raw["gcp"].items() if name in Cloud.model_fields}
    problems = []
    project = str(known.get("project", ""))
    if not project:
        problems.append(Problem("gcp:project", "", "is missing: `pulumi config set gcp:project <id>`"))
    elif project != LOCAL_PROJECT and not _is_project_id(project):
        problems.append(Problem("gcp:project", shown(project), _PROJECT_RULE))
    region = str(known.get("region", "us-west1"))
    if region not in catalog.GCP_ZONES:
        remedy = f"isn't a Google Cloud region{did_you_mean(region, catalog.GCP_ZONES)}"
        problems.append(Problem("gcp:region", shown(region), remedy))
        region = "us-west1"
    return Cloud.model_construct(project=project, region=region), problems


def _is_project_id(text: str) -> bool:
    plain = text.replace("-", "a")
    return (
        6 <= len(text) <= 30
        and plain.isascii()
        and plain.isalnum()
        and text == text.lower()
        and text[0].isalpha()
    )


def _validate(raw: dict[str, Any], secret_keys: set[str] | frozenset[str]) -> tuple[Config, list[Problem]]:
    """The model, and what pydantic refused; refused values are left at their defaults in the model."""
    try:
        return Config.model_validate(raw), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = [_problem(dict(found), secret_keys) for found in errors]
    rest = json.loads(json.dumps(raw))
    for found in errors:
        _without(rest, tuple(found["loc"]))
    try:
        return Config.model_validate(rest), problems
    except ValidationError as error:
        for found in error.errors(include_url=False):
            rest.pop(str(found["loc"][0]), None)
        return Config.model_validate(rest), problems


def _without(tree: Any, path: tuple[int | str, ...]) -> None:
    """Takes the value at a path out of nested dicts and lists, in place."""
    for part in path[:-1]:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(tree, dict):
        tree.pop(path[-1], None)
    elif isinstance(tree, list):
        tree.clear()  # the places of other values in it must not move: there may be more that are wrong


def _problem(error: dict[str, Any], secret_keys: set[str] | frozenset[str]) -> Problem:
    path: tuple[int | str, ...] = error["loc"]
    key = f"{PROJECT}:{path[0]}" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[1:]
    )
    kind = error["type"]
    if kind == "extra_forbidden":
        # The value isn't shown: who mistypes `password` would read it here.
        hint = did_you_mean(str(path[-1]), _known_keys(path[:-1]))
        return Problem(key, "", f"isn't a key that this program knows{hint}")
    value = "" if kind == "missing" else _visible(path, error.get("input"), secret_keys)
    return Problem(key, value, _remedy(error))


def _remedy(error: dict[str, Any]) -> str:
    context = error.get("ctx") or {}
    if error["type"] == "value_error":
        return str(context["error"])
    if error["type"] == "missing":
        return "is missing; set it with `pulumi config set --path` (and --secret for a password)"
    if error["type"] == "literal_error":
        known = [part.strip("' ") for part in str(context["expected"]).replace(" or ", ",").split(",")]
        hint = did_you_mean(str(error.get("input")), known)
        return f"use one of {', '.join(known)}" + (hint if "mean" in hint else "")
    text: str = error["msg"]
    return text[:1].lower() + text[1:]


def _visible(path: tuple[int | str, ...], value: Any, secret_keys: set[str] | frozenset[str]) -> str:
    """The value as a message may show it. What might be, or hold, a secret is never shown."""
    field = _field_type(path)
    if field is None or _holds_secret(field) or isinstance(value, (dict, list)):
        return "(secret)" if field is not None and _holds_secret(field) else ""
    if f"{PROJECT}:{path[0]}" in secret_keys and str(path[-1]) not in _HARMLESS:
        return "(secret)"
    return shown(value)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _holds_secret(annotation: Any) -> bool:
    if annotation is SecretStr:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_secret(field.annotation) for field in annotation.model_fields.values())
    return any(_holds_secret(part) for part in get_args(annotation))


def _field_type(path: tuple[int | str, ...]) -> Any:
    """The annotation of the field at a path of YAML names, or None if there is none."""
    annotation: Any = Config
    for part in path:
        if isinstance(part, int):
            continue
        fields = {
            field.alias: field.annotation
            for model in _models_in(annotation)
            for field in model.model_fields.values()
        }
        if part not in fields:
            return None
        annotation = fields[str(part)]
    return annotation


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    annotation = _field_type(path) if path else Config
    return [str(field.alias) for model in _models_in(annotation) for field in model.model_fields.values()]
