"""Registers the rules with the engine, which starts this as a policy pack (PulumiPolicy.yaml)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# The engine runs this folder, not the package: its parent is where `policy` is found. The folder itself
# leaves the path, on which it stands first.
_FOLDER = Path(__file__).resolve().parent
sys.path[:] = [str(_FOLDER.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _FOLDER)]

import pulumi_policy  # noqa: E402
from pulumi.runtime import proto  # noqa: E402
from pulumi_policy import policy as sdk  # noqa: E402

from policy.model import Resource, Stack, from_wire  # noqa: E402
from policy.rules import RULES, Rule  # noqa: E402


class Inputs:
    """A resource's inputs with their marks, in a form that the SDK hands on untouched.

    The SDK itself unwraps secrets before a policy sees them, and two rules ask whether a value is one.
    """

    def __init__(self, wire: dict[str, Any], proxy_secrets: bool = False) -> None:
        self.values: dict[str, Any] = from_wire(wire)


class Analyzer(sdk._PolicyAnalyzerServicer):
    """What the engine talks to: the SDK's, which keeps what the engine says of the stack."""

    stack = Stack("")

    def ConfigureStack(self, request: Any, context: Any) -> Any:  # noqa: N802 - as in the protocol
        """Comes before the first resource, with the configuration decrypted. The SDK reads its tags only."""
        config = {key: _decoded(text) for key, text in request.config.items()}
        Analyzer.stack = Stack(request.stack, config)
        return super().ConfigureStack(request, context)

    def Remediate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """No rule changes what a program declares."""
        return proto.RemediateResponse()


def _decoded(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text
    except ValueError:
        return text


def policy(name: str, rule: Rule) -> pulumi_policy.ResourceValidationPolicy:
    """One rule as the engine knows it."""

    def validate(args: pulumi_policy.ResourceValidationArgs, report: pulumi_policy.ReportViolation) -> None:
        inputs: Any = args.props  # an `Inputs`
        resource = Resource(args.resource_type, args.name, inputs.values, args.opts.protect)
        for problem in rule(resource, Analyzer.stack):
            report(f"{args.name} {problem}", None)

    assert rule.__doc__  # the rule in a sentence
    return pulumi_policy.ResourceValidationPolicy(name, rule.__doc__.splitlines()[0], validate)


def main() -> None:
    """Serve the engine until it ends this process."""
    vars(sdk).update(deserialize_properties=Inputs, _PolicyAnalyzerServicer=Analyzer)
    pulumi_policy.PolicyPack(
        "ibkr",
        [policy(name, rule) for name, rule in RULES.items()],
        pulumi_policy.EnforcementLevel.MANDATORY,
    )


main()
