"""What the Standard's graphic types are: which shape their points make.

One table for all objects, since a name means the same in each: Graphic Type of presentation states (PS3.3 C.10.5), of
SCOORD (C.18.6) and of SCOORD3D (C.18.9), and Contour Geometric Type (C.8.8.6).

Pixel coordinates of presentation states in units of PIXEL and of SCOORD have one origin: (0, 0) is the corner of the
first pixel and (columns, rows) that of the last (C.10.5.1.1, C.18.6.1.1), which is our own convention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from operators.errors import PromptRefused
from operators.sam.objects.prompt_object import Floats, Shape

_SAME_POINT = 1e-3
"""Pixels or millimetres: two points that differ by less are one."""
_CURVE_CORNERS = 128
"""Corners of the polygon that stands for an ellipse; it is smaller by a three-thousandth."""
_SPLINE_CORNERS = 16
"""Corners between two points of an interpolated curve."""
_MOST_SPLINE_POINTS = 2000
"""With so many points the curve is the polygon."""

Read = tuple[Shape, Floats]


def shape_of(graphic_type: str, points: Floats, *, is_closed: bool = False) -> Read:
    """Return what the points of a graphic make.

    Parameters
    ----------
    points
        (n, 2) or (n, 3), finite.
    is_closed
        Whether the object says that a polyline is closed though its first point does not come again at its end.

    Raises
    ------
    PromptRefused
        ``graphic-unsupported`` if the type is not known, ``unreadable`` if it wants another number of points,
        ``prompt-empty`` if its points make no line and no outline.
    """
    if graphic_type not in _TYPES:
        raise PromptRefused(
            f"expected a graphic of type {', '.join(_TYPES)}, got another; draw one of these",
            code="graphic-unsupported",
        )
    return _TYPES[graphic_type](points, is_closed)


def _point(points: Floats, _: bool) -> Read:
    return Shape.POINTS, points[:1]  # the Standard knows one; some viewers add the tail of an arrow


def _points(points: Floats, _: bool) -> Read:
    return Shape.POINTS, points


def _polyline(points: Floats, is_closed: bool) -> Read:
    distinct = _distinct(points)
    if len(distinct) < 2:
        raise PromptRefused("expected a line or an outline, got a single place", code="prompt-empty")
    ends_meet = len(distinct) > 2 and bool(np.all(np.abs(distinct[0] - distinct[-1]) <= _SAME_POINT))
    corners = distinct[:-1] if ends_meet else distinct
    if len(corners) == 2:
        return Shape.LINE, corners
    return (Shape.OUTLINE if ends_meet or is_closed else Shape.STROKE), corners


def _outline(points: Floats, _: bool) -> Read:
    shape, corners = _polyline(points, is_closed=True)
    if shape is not Shape.OUTLINE:
        raise PromptRefused("expected an outline of three corners or more, got fewer", code="prompt-empty")
    return shape, corners


def _interpolated(points: Floats, is_closed: bool) -> Read:
    from scipy.interpolate import CubicSpline  # here, since it takes long and the server itself needs none

    shape, corners = _polyline(points, is_closed)
    if shape is not Shape.OUTLINE or len(corners) > _MOST_SPLINE_POINTS:
        return shape, corners
    ring = np.concatenate([corners, corners[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    curve = CubicSpline(along, ring, bc_type="periodic")
    steps = np.interp(np.arange(len(corners) * _SPLINE_CORNERS) / _SPLINE_CORNERS, np.arange(len(ring)), along)
    return shape, np.asarray(curve(steps), np.float64)


def _circle(points: Floats, _: bool) -> Read:
    if points.shape[1] != 2:
        raise PromptRefused(
            "expected a circle on an image, got one in the patient, where its plane is not known; draw an ellipse",
            code="graphic-unsupported",
        )
    _expect(points, 2, "a circle: its centre and a point on it")
    centre, radius = points[0], float(np.linalg.norm(points[1] - points[0]))
    return Shape.OUTLINE, _ellipse_around(centre, np.array([radius, 0.0]), np.array([0.0, radius]))


def _ellipse(points: Floats, _: bool) -> Read:
    _expect(points, 4, "an ellipse: the ends of its two axes")
    first, second = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
    return Shape.OUTLINE, _ellipse_around(points.mean(axis=0), first, second)


def _ellipsoid(points: Floats, _: bool) -> Read:
    _expect(points, 6, "an ellipsoid: the ends of its three axes")
    return Shape.ELLIPSOID, points


def _ellipse_around(centre: Floats, first: Floats, second: Floats) -> Floats:
    angles = np.arange(_CURVE_CORNERS) * (2 * np.pi / _CURVE_CORNERS)
    corners: Floats = centre + np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second
    return corners


def _distinct(points: Floats) -> Floats:
    """Leave out a point that lies where the one before it lies."""
    steps = np.abs(np.diff(points, axis=0)).max(axis=1)
    kept: Floats = points[np.concatenate([[True], steps > _SAME_POINT])]
    return kept


def _expect(points: Floats, number: int, what: str) -> None:
    if len(points) != number:
        raise PromptRefused(f"expected {number} points for {what}; got {len(points)}", code="unreadable")


_TYPES: Mapping[str, Callable[[Floats, bool], Read]] = {
    "POINT": _point,
    "MULTIPOINT": _points,
    "POLYLINE": _polyline,
    "INTERPOLATED": _interpolated,
    "CIRCLE": _circle,
    "ELLIPSE": _ellipse,
    "POLYGON": _outline,
    "ELLIPSOID": _ellipsoid,
    "CLOSED_PLANAR": _outline,
    "CLOSEDPLANAR_XOR": _outline,
    "OPEN_PLANAR": _polyline,
    "OPEN_NONPLANAR": _polyline,
}
