"""Numbers and times as the templates write them. What isn't known is a dash, never a zero."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

UNKNOWN = "–"
_UNKNOWN = Markup("–")
_FORMS = {"time": "%H:%M:%S UTC", "exact": "%Y-%m-%d %H:%M:%S UTC"}


def money(value: float | None, currency: str = "") -> str:
    """An amount with cents: 12,345.60, with its currency where it isn't the account's."""
    if value is None:
        return UNKNOWN
    return f"{_minus(f'{value:,.2f}')} {currency}".rstrip()


def change(value: float | None) -> Markup:
    """A gain or a loss: told by sign and arrow too, since not everybody sees the colours apart."""
    if value is None:
        return _UNKNOWN
    kind, arrow = ("gain", "▲") if value > 0 else ("loss", "▼") if value < 0 else ("even", "")
    sign = "+" if value > 0 else ""
    return Markup('<span class="{}"><span aria-hidden="true">{}</span> {}{}</span>').format(
        kind, arrow, sign, _minus(f"{value:,.2f}")
    )


def percent(fraction: float | None) -> str:
    """A fraction as per cent, with its sign."""
    return UNKNOWN if fraction is None else _minus(f"{fraction * 100:+.2f} %")


def quantity(value: float | None) -> str:
    """Shares: whole ones without a fraction."""
    return UNKNOWN if value is None else _minus(f"{value:,.9f}".rstrip("0").rstrip("."))


def moment(value: str | datetime | None, form: str = "time") -> Markup:
    """A moment in UTC, which the script writes in the reader's own time zone.

    `form`: `time` (of day), `date` (and time), `exact` (date and time with seconds), or `age` (how long ago,
    kept up to date).
    """
    if not value:
        return _UNKNOWN
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    text = found.astimezone(UTC).strftime(_FORMS.get(form, "%Y-%m-%d %H:%M UTC"))
    return Markup('<time datetime="{}" data-form="{}">{}</time>').format(
        found.astimezone(UTC).isoformat(timespec="milliseconds"), form, text
    )


def sentence(text: str) -> str:
    """With a capital letter at its begin; the rest as it is, names among it."""
    return text[:1].upper() + text[1:]


def words(value: Any) -> str:
    """`partially_filled` as people write it."""
    return str(value).replace("_", " ")


def _minus(text: str) -> str:
    return text.replace("-", "−")  # a hyphen is narrower than the plus, and breaks lines


FILTERS = {
    "money": money,
    "change": change,
    "percent": percent,
    "quantity": quantity,
    "moment": moment,
    "words": words,
    "sentence": sentence,
}
