"""What a person is told of the engine's work, from events as the engine writes them."""

import json
from pathlib import Path

from tools.engine_log import Engine, Follower

URN = "urn:pulumi:local::ibkr::ibkr:environment:Service$gcp:cloudrunv2/service:Service::ibkr-api-service"


def output(op: str, urn: str = URN) -> dict[str, object]:
    kind = urn.split("::")[2].rpartition("$")[2]
    return {"resOutputsEvent": {"metadata": {"op": op, "urn": urn, "type": kind}}}


def said(severity: str, message: str, urn: str = "") -> dict[str, object]:
    return {"diagnosticEvent": {"severity": severity, "message": message, "urn": urn}}


def taken(*events: dict[str, object]) -> Engine:
    engine = Engine()
    for event in events:
        engine.take(event)
    return engine


def test_changes_are_named_and_what_stays_is_counted() -> None:
    # A replacement as the engine tells it: its parts beside it.
    parts = [output("create-replacement"), output("replace"), output("delete-replaced")]
    engine = taken(*parts, output("same"), {"summaryEvent": {"resourceChanges": {"replace": 1, "same": 84}}})
    assert engine.summary() == "1 replaced, 84 as they were"
    assert engine.named_changes() == ["replaced: Service ibkr-api-service"]


def test_a_stack_made_anew_is_counted_only() -> None:
    engine = taken(*(output("create", f"{URN}-{number}") for number in range(85)))
    assert engine.summary() == "85 made"
    assert engine.named_changes() == []


def test_each_error_is_told_once_with_whose_it_is() -> None:
    engine = taken(
        said("debug", "registering resource"),
        said("error", "update failed\n"),
        said("error", "googleapi: Error 400\n", URN),
        said("error", "googleapi: Error 400\n", URN),
    )
    assert engine.errors == [("Service ibkr-api-service", "googleapi: Error 400")]


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    log, line = tmp_path / "events", json.dumps(output("create"))
    with Follower(log, lambda engine: None) as follower, log.open("w") as out:
        out.write(line[:20])
        out.flush()
        out.write(line[20:] + "\n" + line[:20])
    assert follower.engine.finished == 1
