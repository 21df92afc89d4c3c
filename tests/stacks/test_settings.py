"""The settings: every wrong value stops the program with its key, its value and the remedy.

Decided here without an engine; that nothing is registered before is shown in tests/e2e.
"""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.risk.limits import Limits, limits_from_environment
from stacks.problems import SettingsError
from stacks.relations import overlaps
from stacks.settings import parse
from tests.stacks.inventory import BOTH, FLEET
from tests.stacks.plan import Plan, config_of, plan_of, settings_of

TWO_USERS = [
    {"name": "ann", "username": "annpaper", "password": "x1"},
    {"name": "ann", "username": "annother", "password": "x2"},
]
ONE_LOGIN = [
    {"name": "ann", "username": "shared", "password": "x1"},
    {"name": "bob", "username": "Shared", "password": "x2"},
]


def problems(stack: str, overrides: dict[str, Any], secret_keys: frozenset[str] = frozenset()) -> list[str]:
    """The lines of the message, one a problem; empty if the configuration is good."""
    try:
        parse(stack, config_of(stack, overrides), secret_keys=secret_keys)
    except SettingsError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("stack", ["local", "staging", "prod", "foundation-staging", "foundation-prod"])
def test_a_shipped_stack_with_its_owners_values_is_valid(stack: str) -> None:
    assert problems(stack, {}) == []


WRONG = [
    # stack, key, value, what the message must say beside key and value
    ("staging", "gcp:region", "us-wst1", "did you mean 'us-west1'"),
    ("staging", "gcp:project", "My Project", "6 to 30 lower-case letters"),
    ("staging", "gcp:project", "your-staging-project", "still the placeholder"),
    ("staging", "ibkr:gateway.zone", "us-west1-x", "us-west1-a, us-west1-b"),
    ("staging", "ibkr:gateway.zone", "us-east1-b", "isn't in gcp:region us-west1"),
    ("staging", "ibkr:gateway.port", 4003, "4001 is live, 4002 is paper"),
    ("staging", "ibkr:gateway.port", 4001, "contradicts ibkr:tradingMode paper"),
    ("prod", "ibkr:gateway.port", 4002, "contradicts ibkr:tradingMode live"),
    ("staging", "ibkr:gateway.machineType", "e2-micr", "did you mean 'e2-micro'"),
    (
        "staging",
        "ibkr:gateway.machineType",
        "e2-micro",
        "Use e2-small, or set ibkr:gateway.acceptSmallMachine",
    ),
    ("staging", "ibkr:gateway.machineType", "f1-micro", "IB Gateway takes up to 813. Use e2-small"),
    ("staging", "ibkr:gateway.enabled", False, "ibkr:brokerType is ibkr"),
    ("staging", "ibkr:gateway.address", "10.10.0.1", "use for example 10.10.0.2"),
    ("staging", "ibkr:gateway.address", "10.99.0.7", "isn't in ibkr:network.subnetRange 10.10.0.0/24"),
    ("staging", "ibkr:gateway.autoRestartTime", "23:45", "write it as 11:45 PM"),
    ("staging", "ibkr:gateway.software.gatewaySha256", "abc", "`sha256sum` prints"),
    ("staging", "ibkr:gateway.software.gatewaySource", "http://x/installer.sh", "gs://"),
    ("staging", "ibkr:network.subnetRange", "10.10.0.5/24", "write 10.10.0.0/24"),
    ("staging", "ibkr:network.subnetRange", "10.10.0.0", "for example 10.10.0.0/24"),
    ("staging", "ibkr:network.subnetRange", "ten", "a range needs its size"),
    ("staging", "ibkr:network.subnetRange", "10.10.0.0/30", "/29 or larger"),
    ("staging", "ibkr:network.subnetRange", "8.8.8.0/24", "isn't private"),
    ("staging", "ibkr:network.subnetRange", "127.20.0.0/24", "isn't private"),
    ("local", "ibkr:network.subnetRange", "10.10.0.0/24", "within 127.0.0.0/8"),
    ("staging", "ibkr:network.connectorRange", "10.10.1.0/27", "use for example 10.10.1.0/28"),
    ("staging", "ibkr:network.connectorRange", "10.10.0.16/28", "overlaps ibkr:network.subnetRange"),
    ("staging", "ibkr:network.privateServicesRange", "10.10.0.0/24", "overlaps ibkr:network.subnetRange"),
    ("staging", "ibkr:network.privateServicesRange", "10.11.0.0/28", "/24 or larger"),
    ("staging", "ibkr:network.connectorName", "ibkr-staging-connect", "counts 22 characters"),
    ("staging", "ibkr:network.connectorName", "Connector", "lower-case letters"),
    ("staging", "ibkr:network.denyConnector", False, "only the local cloud may go without"),
    ("staging", "ibkr:network.conectorRange", "10.10.1.0/28", "did you mean 'connectorRange'"),
    ("staging", "ibkr:brokerType", "interactivebrokers", "use one of alpaca, ibkr, ibeam, simulated"),
    ("staging", "ibkr:brokerType", "alpaca", "ibkr:alpaca: is missing"),
    ("staging", "ibkr:tradingMode", "papr", "did you mean 'paper'"),
    ("staging", "ibkr:marketDataSource", "alpaca", "which needs apiKey and secretKey"),
    ("staging", "ibkr:alpaca.endpoint", "paper-api.alpaca.markets", "begins with https://"),
    ("staging", "ibkr:alpaca.endpoint", "http://proxy:8080", "would carry the keys in clear"),
    ("staging", "ibkr:alpaca.streamEndpoint", "ws://proxy/stream", "would carry the keys in clear"),
    ("staging", "ibkr:alpaca.streamEndpoint", "https://proxy/stream", "begins with wss://"),
    ("staging", "ibkr:alpaca.endpoint", "https://api.alpaca.markets", "and ibkr:tradingMode is paper"),
    ("prod", "ibkr:alpaca.endpoint", "https://paper-api.alpaca.markets", "and ibkr:tradingMode is live"),
    ("staging", "ibkr:limits.maxOrderValue", -5, "a number from 0 on, or none"),
    ("staging", "ibkr:limits.maxOrderValue", "10k", "a number from 0 on, or none"),
    ("staging", "ibkr:limits.maxShortQty", "inf", "a number from 0 on, or none"),
    ("staging", "ibkr:limits.maxOrderQty", True, "a number from 0 on, or none"),
    ("staging", "ibkr:limits.ordersPerMinute", 1.5, "a whole number, or none"),
    ("staging", "ibkr:limits.maxQuoteAgeSeconds", "none", "a number of seconds"),
    ("staging", "ibkr:limits.delayedQuotes", "perhaps", "valid boolean"),
    ("staging", "ibkr:limits.symbolsAllowed", ["aapl"], "upper case, such as AAPL"),
    ("staging", "ibkr:limits.symbolsAllowed", [], "at least one ticker"),
    ("staging", "ibkr:limits.maxOrdrValue", 5, "did you mean 'maxOrderValue'"),
    ("staging", "ibkr:brokr", "x", "did you mean"),
    ("staging", "ibrk:brokerType", "ibkr", "did you mean 'ibkr'"),
    ("staging", "gcp:projct", "x", "did you mean 'project'"),
    ("staging", "ibkr:api.image", "", "container image"),
    ("staging", "ibkr:api.cpu", "0.5", "use one of 1, 2, 4"),
    ("staging", "ibkr:api.clientId", 0, "greater than or equal to 1"),
    ("staging", "ibkr:api.concurrency", "many", "valid integer"),
    ("staging", "ibkr:api.corsOrigins", ["*"], "write every origin out, not *"),
    ("staging", "ibkr:api.corsOrigins", ["https://app.your.co/"], "write https://app.your.co"),
    ("staging", "ibkr:api.corsOrigins", ["http://app.your.co"], "use https"),
    ("staging", "ibkr:api.corsOrigins", ["https://app.example.com"], "still the placeholder"),
    ("staging", "ibkr:database.tier", "db-huge", "db-custom-<cpus>-<MiB>"),
    ("staging", "ibkr:database.version", "MYSQL_8", "POSTGRES_14 to"),
    ("staging", "ibkr:auth.issuer", None, "whose bearer tokens"),
    ("staging", "ibkr:auth.issuer", "https://auth.example.com/", "still the placeholder"),
    ("staging", "ibkr:foundationStack", None, "the stack that declares the network"),
    ("staging", "ibkr:operators", ["ann"], "user:ann@company.com"),
    ("staging", "ibkr:gateway.mode", "live", "contradicts ibkr:tradingMode paper"),
    ("staging", "ibkr:gateway.opsAgent.keys", ["35BA"], "40 digits"),
    ("staging", "ibkr:gatewayCredentials", None, "--secret --path 'ibkr:gatewayCredentials.password'"),
    ("staging", "ibkr:databasePassword", None, "--secret --path 'ibkr:databasePassword'"),
    ("foundation-prod", "ibkr:databasePassword", None, "the database's user needs one"),
    ("local", "digitalocean:token", None, "or DIGITALOCEAN_TOKEN in the environment"),
    ("staging", "ibkr:ibeam.region", "nyc9", "isn't a DigitalOcean region"),
    ("staging", "ibkr:ibeam.size", "s-1vcpu-3gb", "isn't a droplet size"),
    ("staging", "ibkr:ibeam.size", "s-1vcpu-512mb-10gb", "use s-1vcpu-1gb"),
    ("local", "ibkr:ibeam.users", TWO_USERS, "makes the droplet ann-ib-paper-1, as ibkr:ibeam.users[0]"),
    ("local", "ibkr:ibeam.users", ONE_LOGIN, "is the same IBKR user as ibkr:ibeam.users[0].username"),
    ("local", "ibkr:ibeam.users", [{**TWO_USERS[0], "name": "/"}], "can't be part of a droplet's name"),
    ("local", "ibkr:ibeam.users", [{**TWO_USERS[0], "name": "a" * 64}], "a host name 63 at most"),
    (
        "local",
        "ibkr:ibeam.users",
        [{"username": "x", "password": "y"}],
        "becomes a part of the droplet's name",
    ),
    ("local", "ibkr:ibeam.users", [{"name": "ann"}], "ibkr:ibeam.users[0].password: is missing"),
    ("local", "ibkr:ibeam.users", [{**TWO_USERS[0], "environment": "test"}], "use one of live, paper, demo"),
    ("local", "ibkr:ibeam.holdCredentials", False, "holds their IBKR passwords"),
    ("local", "ibkr:ibeam.container", "voyz/ibeam:0.5.12", "write voyz/ibeam:0.5.12@sha256:<64 hex"),
    ("local", "ibkr:ibeam.container", "voyz/ibeam@sha256:abc", "write voyz/ibeam@sha256:<64 hex"),
    ("local", "ibkr:ibeam.defaultDroplet", "ann-ib-paper-1", "which make demo-ib-paper-1"),
    ("local", "ibkr:digitaloceanToken", None, "--secret --path 'ibkr:digitaloceanToken'"),
    ("local", "ibkr:fleet.image", 182556282, "can't enrol with the service: use a stock image"),
    ("local", "ibkr:fleet.serviceUrl", None, "its first one is at http://127.20.191.2:8080"),
    ("local", "ibkr:fleet.serviceUrl", "http://127.20.191.2:8080/?a=b", "leave out ? and #"),
    ("local", "ibkr:fleet.accountsPerUser", 0, "greater than or equal to 1"),
    ("local", "ibkr:fleet.reconcileMinutes", 60, "less than or equal to 30"),
    ("local", "ibkr:fleet.size", "s-1vcpu-512mb-10gb", "use s-1vcpu-1gb"),
    ("local", "ibkr:fleet.on", True, "isn't a key that this program knows"),
]


@pytest.mark.parametrize(("stack", "key", "value", "remedy"), WRONG)
def test_a_wrong_value_is_named_with_its_remedy(stack: str, key: str, value: Any, remedy: str) -> None:
    found = problems(stack, {key: value})
    assert any(remedy in line for line in found), found
    assert any(key in line for line in found), "the message names the key, so that a person finds it"
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value and "did you" not in remedy:
        assert any(str(value) in line for line in found), "the message shows the value"


def test_one_wrong_value_makes_one_problem() -> None:
    single = [case for case in WRONG if case[1] != "ibkr:brokerType"]
    for stack, key, value, _ in single:
        found = problems(stack, {key: value})
        # A user without credentials lacks two values.
        assert len(found) == (2 if value == [{"name": "ann"}] else 1), (key, value, found)


def test_all_problems_are_reported_at_once() -> None:
    overrides = {
        "gcp:region": "nowhere1",
        "ibkr:network.subnetRange": "10.10.0.1/24",
        "ibkr:network.connectorRange": "10.11.0.0/24",
        "ibkr:gateway.port": 4003,
        "ibkr:tradingMode": "both",
        "ibkr:api.memory": "1GB",
        "ibkr:databasePassword": None,
        "ibkr:ibeam.usrs": [],
    }
    found = problems("staging", overrides)
    for key in overrides:
        assert any(line.startswith(key) for line in found), f"{key} isn't in {found}"
    assert any("overlaps" in line for line in found), "relations are checked although single values are wrong"


def test_a_problem_that_only_follows_from_another_is_left_out() -> None:
    found = problems("staging", {"ibkr:brokerType": "ibk"})
    assert len(found) == 1, "that Alpaca's keys are missing follows from the default, not from the person"


def test_a_secret_is_never_shown() -> None:
    secret = "hunter2-hunter2"
    cases: list[dict[str, Any]] = [
        {"ibkr:gatewayCredentials": {"username": secret, "pasword": secret}},
        {"ibkr:gatewayCredentials": secret},
        {"ibkr:gatewayCredentials": {"username": [secret], "password": {"a": secret}}},
        {"ibkr:databasePassword": {"value": secret}},
        {"ibkr:gatewayPassword": secret},
        {"ibkr:ibeam.users": [{"name": "ann", "username": secret, "password": [secret], "note": secret}]},
        {"ibkr:ibeam.users": [{"name": "ann", "environment": secret}]},
        {"ibkr:alpaca": {"apiKey": secret}},
        {"ibkr:alertUrls": f"tgram://x/1,{secret}"},
        {"ibkr:alertUrls": {"telegram": secret}},
    ]
    for overrides in cases[:6] + cases[7:]:
        found = problems("local", overrides)
        assert found
        assert secret not in "\n".join(found), overrides
    assert problems("local", cases[6], frozenset({"ibkr:ibeam"}))


def test_one_of_alpacas_keys_is_of_no_use_without_the_other() -> None:
    [said] = problems("staging", {"ibkr:alpaca": {"apiKey": "PK1"}})
    assert said.startswith("ibkr:alpaca.secretKey: is missing")


@pytest.mark.parametrize("urls", ["my-token", "tgram://1:x/2, 3:x/4", "json://"])
def test_what_is_no_url_for_alerts_is_refused_unseen(urls: str) -> None:
    [said] = problems("staging", {"ibkr:alertUrls": urls})
    assert said.startswith("ibkr:alertUrls")
    assert urls not in said


def test_alert_urls_may_have_commas_or_white_space_between_them() -> None:
    assert (
        problems("staging", {"ibkr:alertUrls": "tgram://1:x/2, mailtos://u:p@mail.test\nslack://a/b/c"}) == []
    )


def test_every_limit_of_the_service_can_be_set_and_is_read_as_it_was_meant() -> None:
    written: dict[str, Any] = {
        "maxOrderValue": 2500,
        "maxOrderQty": "100",
        "maxLongQty": "none",
        "maxShortQty": 0,
        "maxLongValue": 12500.5,
        "maxShortValue": "None",
        "priceCollarPercent": 2.5,
        "farCollarPercent": "none",
        "maxQuoteAgeSeconds": 5,
        "delayedQuotes": True,
        "ordersPerMinute": 10,
        "maxDayLoss": 250,
        "maxDayLossPercent": 1,
        "symbolsAllowed": ["AAPL", "BRK.B"],
        "symbolsForbidden": ["TSLA"],
    }
    plan = plan_of(settings_of("prod", {"ibkr:limits": written}))
    variables = environment_of(plan)
    assert limits_from_environment(variables, "live") == Limits(
        max_order_value=2500.0,
        max_order_qty=100.0,
        max_long_qty=None,
        max_short_qty=0.0,
        max_long_value=12500.5,
        max_short_value=None,
        price_collar_percent=2.5,
        far_collar_percent=None,
        max_quote_age_seconds=5.0,
        delayed_quotes=True,
        orders_per_minute=10,
        max_day_loss=250.0,
        max_day_loss_percent=1.0,
        symbols_allowed=frozenset({"AAPL", "BRK.B"}),
        symbols_forbidden=frozenset({"TSLA"}),
    )
    names = {f"RISK_{field.name.upper()}" for field in dataclasses.fields(Limits)}
    assert {name for name in variables if name.startswith("RISK_")} == names, "one for each of the service's"


def test_limits_that_are_not_set_are_the_services_own() -> None:
    assert not [name for name in environment_of(plan_of(settings_of("prod"))) if name.startswith("RISK_")]


@pytest.mark.parametrize(("stack", "paper"), [("staging", "true"), ("prod", "false")])
def test_the_trading_mode_decides_which_alpaca_it_is(stack: str, paper: str) -> None:
    settings = settings_of(stack, {"ibkr:alpaca": {"apiKey": "k", "secretKey": "s"}})
    assert environment_of(plan_of(settings))["ALPACA_PAPER"] == paper


def environment_of(plan: Plan) -> dict[str, str]:
    """The service's plain variables."""
    [container] = plan.one("cloudrunv2/service:Service").inputs["template"]["containers"]
    return {one["name"]: one["value"] for one in container["envs"] if "value" in one}


def test_a_password_may_hold_any_characters() -> None:
    password = "a\"b'c\\d/e&f$g{h}[i] ü\t"
    settings = settings_of("local", {"ibkr:gatewayCredentials": {"username": "u", "password": password}})
    assert settings.gateway_credentials is not None
    assert settings.gateway_credentials.password.get_secret_value() == password


def test_a_small_machine_is_accepted_from_who_knows() -> None:
    overrides = {"ibkr:gateway.machineType": "e2-micro", "ibkr:gateway.acceptSmallMachine": True}
    assert problems("staging", overrides) == []


def test_two_gateways_need_two_logins_and_the_memory_for_them() -> None:
    assert problems("staging", BOTH) == []
    small = problems("staging", {**BOTH, "ibkr:gateway.machineType": "e2-small"})
    assert len(small) == 1
    assert "two IB Gateways (ibkr:gateway.mode both) take up to 1626" in small[0]
    assert "Use e2-medium" in small[0]
    missing = problems("staging", {**BOTH, "ibkr:liveCredentials": None})
    assert len(missing) == 1
    assert "--secret --path 'ibkr:liveCredentials.username'" in missing[0]
    same = problems("staging", {**BOTH, "ibkr:liveCredentials": BOTH["ibkr:paperCredentials"]})
    assert len(same) == 1
    assert "is the same IBKR user as ibkr:paperCredentials.username" in same[0]


def test_a_provider_login_in_the_environment_is_enough() -> None:
    config = config_of("local", {"digitalocean:token": None})
    assert parse("local", config, environment={"DIGITALOCEAN_TOKEN": "dop_v1_x"}).uses_digitalocean


def test_numbers_and_switches_may_be_written_as_text() -> None:
    settings = settings_of("staging", {"ibkr:gateway.port": "4002", "ibkr:gateway.protectSettings": "true"})
    assert settings.api_port == 4002
    assert settings.gateway.protect_settings


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            {"ibkr:ibeam.holdCredentials": False},
            "ibkr:ibeam.holdCredentials = false: with ibkr:fleet",
        ),
        ({"ibkr:ibeam.container": "voyz/ibeam:0.5.12@sha256:your-digest"}, "is still the placeholder"),
        ({"ibkr:ibeam.container": "voyz/ibeam:0.5.12"}, "a tag may mean another image tomorrow"),
        ({"ibkr:fleet.serviceUrl": "http://api.trader.test"}, "would carry tokens in clear"),
        ({"ibkr:fleet.digitaloceanApi": "http://proxy:8080"}, "would carry tokens in clear"),
        ({"ibkr:fleet.serviceUrl": None}, "ibkr:api.public = false: droplets enrol at the service"),
        ({"ibkr:ibeam.image": "182556282"}, "ibkr:fleet.image = 182556282: is a private snapshot"),
    ],
)
def test_a_fleet_says_what_it_lacks(overrides: dict[str, Any], says: str) -> None:
    [found] = problems("staging", {**FLEET, **overrides})
    assert says in found


def test_a_snapshot_for_declared_droplets_goes_with_a_stock_image_for_the_fleet() -> None:
    image = {"ibkr:ibeam.image": "182556282", "ibkr:fleet.image": "ubuntu-24-04-x64"}
    assert settings_of("staging", {**FLEET, **image}).fleet_image == "ubuntu-24-04-x64"


def test_a_stack_without_droplets_needs_no_image_for_them() -> None:
    assert problems("staging", {"ibkr:ibeam.container": "voyz/ibeam:0.5.12@sha256:your-digest"}) == []


IBEAM = {"ibkr:brokerType": "ibeam"}
TWO_DROPLETS = [
    {"name": "ann", "username": "annpaper", "password": "x1"},
    {"name": "bob", "username": "boblive", "password": "x2", "environment": "live"},
]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"ibkr:ibeam.users": []}, "there is none: declare its user in ibkr:ibeam.users"),
        ({"ibkr:ibeam.users": TWO_DROPLETS}, "ibkr:ibeam.defaultDroplet: is missing"),
        (
            {"ibkr:ibeam.users": TWO_DROPLETS, "ibkr:ibeam.defaultDroplet": "bob-ib-live-1"},
            "ibkr:tradingMode = paper: contradicts droplet bob-ib-live-1",
        ),
    ],
)
def test_ibeam_trades_through_one_declared_droplet(overrides: dict[str, Any], says: str) -> None:
    [found] = problems("local", {**IBEAM, **overrides})
    assert says in found


def test_the_only_declared_droplet_is_the_default_one() -> None:
    user = settings_of("local", IBEAM).default_user
    assert user is not None
    assert user.droplet_name == "demo-ib-paper-1"
    chosen = {"ibkr:ibeam.users": TWO_DROPLETS, "ibkr:ibeam.defaultDroplet": "ann-ib-paper-1"}
    user = settings_of("local", {**IBEAM, **chosen}).default_user
    assert user is not None
    assert user.name == "ann"


def test_a_stack_name_that_cannot_be_a_label_is_refused() -> None:
    with pytest.raises(SettingsError, match="part of names at DigitalOcean"):
        parse("Local.Stack", config_of("local"))


def test_values_do_not_appear_in_the_settings_repr() -> None:
    text = repr(settings_of("local"))
    assert "gateway-pa" not in text
    assert json.dumps(config_of("local")["ibkr:databasePassword"]) not in text


RANGES = st.builds(
    lambda base, size: IPv4Network((base, size), strict=False), st.integers(0, 2**32 - 1), st.integers(8, 30)
)


@given(st.lists(RANGES, min_size=2, max_size=4))
def test_ranges_overlap_if_and_only_if_they_share_an_address(ranges: list[IPv4Network]) -> None:
    named = {str(number): found for number, found in enumerate(ranges)}
    reported = {tuple(sorted(pair)) for pair in overlaps(named)}
    for first, one in named.items():
        for second, other in named.items():
            if first < second:
                shares = one[0] <= other[-1] and other[0] <= one[-1]
                assert ((first, second) in reported) == shares


@given(RANGES)
def test_a_range_that_the_settings_accept_is_the_one_that_was_written(subnet: IPv4Network) -> None:
    found = problems("staging", {"ibkr:network.subnetRange": str(subnet)})
    if not found:
        assert (
            settings_of("staging", {"ibkr:network.subnetRange": str(subnet)}).network.subnet_range == subnet
        )
        assert subnet.is_private
