"""What a failed command says: the cause and the remedy first, and where the log is second."""

from tools.engine_log import Engine


def of_engine(command: str, engine: Engine, log: str) -> str:
    """A run of Pulumi's engine that didn't get to its end."""
    lines = [f"`make {command}` didn't get to its end:"]
    lines += [f"  {resource}: {text}" if resource else f"  {text}" for resource, text in engine.errors]
    lines += [f"Log: {log}"]
    return "\n".join(lines)
