"""What a client wants of an answer that can be had in two forms: the Accept header (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

JSON, PNG = "application/json", "image/png"
_MOST = 1.0


def wants_png(accept: Sequence[str]) -> bool:
    """Whether an answer is to be a PNG and not the JSON that it is otherwise.

    It is where the client names ``image/png`` or ``image/*`` and likes it no less than JSON. ``*/*``, which clients
    send by themselves, asks for none.

    Parameters
    ----------
    accept
        The header's values, one for each time that it was sent. A range whose weight is no number counts for nothing.
    """
    weights = dict(_weights(",".join(accept)))
    png = _weight_of(weights, PNG, "image/*")
    return png > 0 and png >= _weight_of(weights, JSON, "application/*", "*/*")


def _weight_of(weights: dict[str, float], *ranges: str) -> float:
    """The weight of the first of these ranges that was named; 0 of none."""
    return next((weights[one] for one in ranges if one in weights), 0.0)


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    """Each media range, in small letters and without parameters, and its weight from 0 to 1."""
    for element in accept.lower().split(","):
        name, *parameters = (part.strip() for part in element.split(";"))
        named = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        try:
            weight = float(named.get("q", _MOST))
        except ValueError:
            continue
        if name and math.isfinite(weight):
            yield name, min(max(weight, 0.0), _MOST)
