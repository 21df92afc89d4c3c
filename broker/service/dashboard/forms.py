"""Forms as browsers send them."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import Request


async def sent(request: Request, strip: bool = True) -> dict[str, str]:
    """A form's fields; the first value of each. (The body's size is limited for every request.)"""
    text = (await request.body()).decode(errors="replace")
    found = parse_qs(text, keep_blank_values=True, max_num_fields=50)
    return {name: values[0].strip() if strip else values[0] for name, values in found.items()}
