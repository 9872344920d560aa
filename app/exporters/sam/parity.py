"""How far a network of the SAM family strays from torch: figures by the kind of prompt, and the words of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from app.errors import ImportRefused
from app.exporters.parity import Array, Limits, extent_of

NEAR = Limits(logit_error=1e-3, agreement=0.999, dice=None)
"""What must be kept where both sides compute in single precision. Networks of this family stray by a millionth: they
have no normalisation over many thousands of values, for which `app.exporters.parity.EXACT` must be wider."""

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Explain = Callable[["Case", Mapping[str, Array]], str | None]
"""Finds out why an answer strays, or says nothing."""


@dataclass(frozen=True)
class Case:
    """One request, and what torch answers."""

    kind: str
    """Of the prompt; of an encoder, that there is none."""
    image: str
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    """The first output holds what is decided by: logits, or an embedding."""

    def seeing(self, embeddings: Mapping[str, Array]) -> Case:
        """Return the same request with other embeddings of the image, all that an encoder gave."""
        return replace(self, inputs={**self.inputs, **embeddings})


@dataclass(frozen=True)
class Figures:
    """How one case fared."""

    prompt: str
    image: str
    largest_error: float
    mean_error: float
    relative_error: float
    """The largest error of an output as a share of the range of its values."""
    agreement: float
    """The share of mask elements that both put on the same side of the threshold."""
    dice: float
    finite: bool


def judge(
    what: str,
    cases: Iterable[Case],
    answer: Answer,
    limits: Limits,
    *,
    has_masks: bool,
    explain: Explain = lambda _case, _found: None,
) -> list[dict[str, Any]]:
    """Compare the answers to all cases with torch's, and return the figures of each kind of prompt, at their worst.

    Parameters
    ----------
    what
        The network and how it is run, for a refusal.
    has_masks
        Whether the first output holds masks, which can agree; an embedding can only be near.

    Raises
    ------
    ImportRefused
        ``parity-refused``, naming the network, the prompts and what parts.
    """
    figures: list[Figures] = []
    faults: dict[tuple[str, str], str] = {}
    reason = None
    for case in cases:
        found = answer(case.inputs)
        fault = _shape_fault(case, found)
        if fault is None:
            figures.append(_figures(case, found))
            fault = _fault(figures[-1], limits, has_masks=has_masks)
        if fault is None:
            continue
        if not faults:
            reason = explain(case, found)
        faults[case.kind, case.image] = fault
    if not faults:
        return [asdict(_worst(figures, kind)) for kind in dict.fromkeys(one.prompt for one in figures)]
    (kind, image), fault = next(iter(faults.items()))
    agreeing = sorted({one.prompt for one in figures} - {kind for kind, _ in faults})
    straying = sorted({image for _, image in faults})
    raise ImportRefused(
        f"{what} does not compute what was trained, and nothing is published. Asked with {kind} on the image "
        f"'{image}': {fault}"
        + (f"; {reason}" if reason else "")
        + f". {len(faults)} questions part, on the images {', '.join(straying)}"
        + (f"; all agree that ask with {' or '.join(agreeing)}" if agreeing else ""),
        code="parity-refused",
    )


def _shape_fault(case: Case, found: Mapping[str, Array]) -> str | None:
    for name, expected in case.expected.items():
        if name not in found:
            return f"there is no output {name}"
        if found[name].shape != expected.shape:
            return f"{name} is {list(found[name].shape)}, and must be {list(expected.shape)}"
    return None


def _figures(case: Case, found: Mapping[str, Array]) -> Figures:
    errors = {name: np.abs(found[name].astype(np.float64) - expected) for name, expected in case.expected.items()}
    first, *_ = case.expected
    one, other = case.expected[first] > 0, found[first] > 0
    marked = np.count_nonzero(one) + np.count_nonzero(other)
    finite = all(np.isfinite(error).all() for error in errors.values())
    return Figures(
        prompt=case.kind,
        image=case.image,
        largest_error=float(errors[first].max()),
        mean_error=float(errors[first].mean()),
        relative_error=max(float(error.max()) / _extent(case.expected[name]) for name, error in errors.items()),
        agreement=float(np.mean(one == other)),
        dice=float(2 * np.count_nonzero(one & other) / marked) if marked else 1.0,
        finite=finite,
    )


def _extent(values: Array) -> float:
    """The range of an output's values; of a single number, which has none, how large it is."""
    return extent_of(values) if values.size > 1 else max(float(np.abs(values).max()), 1.0)


def _worst(figures: Sequence[Figures], kind: str) -> Figures:
    """What is worst of the cases of one kind; the image is that of the largest relative error."""
    same = [one for one in figures if one.prompt == kind]
    return Figures(
        prompt=kind,
        image=max(same, key=lambda one: one.relative_error).image,
        largest_error=max(one.largest_error for one in same),
        mean_error=max(one.mean_error for one in same),
        relative_error=max(one.relative_error for one in same),
        agreement=min(one.agreement for one in same),
        dice=min(one.dice for one in same),
        finite=all(one.finite for one in same),
    )


def _fault(figures: Figures, limits: Limits, *, has_masks: bool) -> str | None:
    if not figures.finite:
        return "a value is not a finite number"
    if limits.logit_error is not None and figures.relative_error > limits.logit_error:
        return (
            f"a value is off by {figures.largest_error:.3g}, {figures.relative_error:.2g} of their range where "
            f"{limits.logit_error:g} is allowed"
        )
    if has_masks and figures.agreement < limits.agreement:
        return f"{figures.agreement:.5f} of the masks agree where {limits.agreement:g} must"
    if has_masks and limits.dice is not None and figures.dice < limits.dice:
        return f"a Dice coefficient of {figures.dice:.5f} where {limits.dice:g} is needed"
    return None
