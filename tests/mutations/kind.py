"""What a kind of damage is: a function, named and described, and what truth says must become of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydicom.dataset import Dataset

from tests.mutations.series import MODALITIES, Modality

Series = list[Dataset]
Files = list[bytes]
Damage = Callable[[Any], Any]
"""Takes a series (or its files), which it may change, and returns what is to be read in its place."""


class Truth(StrEnum):
    """What must become of a series."""

    CLEAN = "clean"
    """Nothing is wrong: its own volume must be read."""
    HARMLESS = "harmless"
    """The volume is the clean series' still, and must be read."""
    REPAIRABLE = "repairable"
    """The clean series' volume can be had of it exactly: that, or a refusal."""
    NOTABLE = "notable"
    """It is what it says, and whoever uses the result must know: refused or read with a note, never in silence."""
    HARMFUL = "harmful"
    """No volume can be trusted: it must be refused with a code."""
    UNDETECTABLE = "undetectable"
    """The instances contradict neither each other nor the Standard: whoever can tell is named."""


Need = Literal["gate", "inputs", "open"]
"""``gate``: the policies at the input; ``inputs``: more encodings; ``open``: a known gap that nothing fills."""
MERGED: frozenset[Need] = frozenset({"gate", "inputs"})
"""What is there of what kinds need. A kind that needs anything else is held to the contrary of its truth, so that it
can't be forgotten here when that comes."""


@dataclass(frozen=True)
class Kind:
    """One kind of damage."""

    name: str
    group: str
    what: str
    """One sentence, for the page."""
    truth: Truth
    damage: Damage
    codes: tuple[str, ...] = ()
    """What it may be refused with, or noted as; none names any."""
    modalities: tuple[Modality, ...] = MODALITIES
    on_files: bool = False
    """Whether the damage is done to the files' bytes."""
    own_truth: bool = False
    """Whether the true volume is that of the headers as they then are, instead of the clean series'."""
    needs: Need | None = None
    """What its truth waits for."""
    who: str = ""
    """Who can tell, where the instances can't."""

    @property
    def is_due(self) -> bool:
        """Whether what it needs is there."""
        return self.needs is None or self.needs in MERGED


KINDS: dict[str, Kind] = {}
"""Every kind, in the order of the page."""

Register = Callable[[Damage], Damage]


def _registering(truth: Truth, codes: tuple[str, ...], more: dict[str, Any]) -> Register:
    only = more.pop("only", None)

    def register(damage: Damage) -> Damage:
        name = damage.__name__.replace("_", "-")
        assert name not in KINDS, f"two kinds are named {name}"
        KINDS[name] = Kind(
            name=name,
            group=damage.__module__.rsplit(".", 1)[-1],
            what=" ".join((inspect.getdoc(damage) or "").split()).removesuffix("."),
            truth=truth,
            damage=damage,
            codes=codes,
            modalities=(only,) if only else MODALITIES,
            **{"own_truth": truth is Truth.CLEAN, **more},
        )
        return damage

    return register


def clean(**more: Any) -> Register:
    """A series with nothing wrong."""
    return _registering(Truth.CLEAN, (), more)


def harmless(**more: Any) -> Register:
    """A kind that leaves the volume what it is. `only` names a modality, `on_files` and `needs` are `Kind`'s."""
    return _registering(Truth.HARMLESS, (), more)


def repairable(*codes: str, **more: Any) -> Register:
    """A kind that may be repaired exactly, or refused with one of `codes`."""
    return _registering(Truth.REPAIRABLE, codes, more)


def notable(*codes: str, **more: Any) -> Register:
    """A kind that must be refused or noted with one of `codes`."""
    return _registering(Truth.NOTABLE, codes, more)


def harmful(*codes: str, **more: Any) -> Register:
    """A kind that must be refused with one of `codes`."""
    return _registering(Truth.HARMFUL, codes, more)


def undetectable(who: str, **more: Any) -> Register:
    """A kind that the instances can't show; `who` can."""
    return _registering(Truth.UNDETECTABLE, (), {**more, "who": who})
