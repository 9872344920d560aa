"""The page docs/reference/damaged-input.md, made of what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from tests.mutations import kinds  # noqa: F401 - fills KINDS
from tests.mutations.judge import Outcome, Verdict
from tests.mutations.kind import KINDS, Kind, Truth
from tests.mutations.results import Reader, Results
from tests.mutations.series import MODALITIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "damaged-input.md"
READERS: tuple[Reader, ...] = get_args(Reader)

_HEAD = """# Damaged input

What becomes of {count} kinds of damaged, odd and unusual input, each made of a real abdominal CT (20 slices) and, where
it applies, of a real abdominal MR (20 slices): {cases} series. Beside Limner's reading stands that of the MONAI Deploy
App SDK {version} ({date}): its DICOM data loader, series selector, and series to volume operator. The selector has no
rules; one for the modality would turn away what is of another.

*Made from `tests/mutations` by `python -m tests.mutations`; `--sdk` asks the SDK again as well. A test holds Limner's
columns to what it does, whenever the tests run; the SDK's columns are as of the date.*

Limner reads as a pipeline does whose model is for abdomens of the modality, with the default policies of the
[input checks](input-checks.md).

Every series that is read is held against the volume that it truly is, found from the data by other means: every voxel,
and the place of all eight corners in the patient, to a millionth of a millimetre.

| must be | means |
|---|---|
| read | nothing is wrong with it, or nothing that touches the volume: to refuse it is a false alarm |
| read or refused | the true volume can be had of it exactly; or the series is refused |
| noted | the volume is what the headers say, and whoever uses a result must be told: a note, or a refusal |
| refused | no volume of it can be trusted |
| – | the instances contradict neither each other nor the Standard: nobody can tell from them. Who else can is said |

| and became | means |
|---|---|
| read | the true volume |
| noted `code` | read, and the result says so; [input checks](input-checks.md) explains each code |
| `code` | refused; [refusals](refusals.md) explains each code. Of the SDK, which has none: the error that ends it |
| accepted | read without a word although it must not be, the values as stored |
| **another volume** | read without a word, and not the true volume; what differs is said |

What a reader only writes into its log is no word: the application goes on, and the result says nothing of it.
"""
_MUST = {
    Truth.CLEAN: "read",
    Truth.HARMLESS: "read",
    Truth.REPAIRABLE: "read or refused",
    Truth.NOTABLE: "noted",
    Truth.HARMFUL: "refused",
    Truth.UNDETECTABLE: "–",
}
_GROUPS = {
    "clean": "Nothing is wrong",
    "encoding": "Encodings",
    "headers": "Headers",
    "geometry": "Where the slices lie",
    "identity": "Whose the instances are",
    "content": "What the instances show",
    "pixels": "Pixel data",
    "values": "What the values mean",
    "files": "Files",
}
_GRADES = ("as it must be", "false alarm", "wrong volume", "accepted in silence", "broke")


def page(results: Results) -> str:
    """Return the page's text."""
    cases = sum(len(kind.modalities) for kind in KINDS.values())
    head = _HEAD.format(count=len(KINDS), cases=cases, version=results.sdk_version, date=results.sdk_date)
    parts = [head, _counts(results), _gaps()]
    for group, title in _GROUPS.items():
        rows = [_row(kind, results) for kind in KINDS.values() if kind.group == group]
        columns = "".join(f" {reader}, {modality} |" for reader in READERS for modality in MODALITIES)
        parts.append(f"## {title}\n\n| kind | what it is | must be |{columns}\n|---|---|---|---|---|---|---|")
        parts[-1] += "\n" + "\n".join(rows) + "\n"
    return "\n".join(parts)


def grade(kind: Kind, verdict: Verdict) -> str:
    """Return how good a verdict is, in one of a few words."""
    if verdict.outcome is Outcome.BROKE:
        return "broke"
    refused, wrong = verdict.outcome is Outcome.REFUSED, verdict.outcome is Outcome.ANOTHER
    match kind.truth:
        case Truth.CLEAN | Truth.HARMLESS:
            return "false alarm" if refused else "wrong volume" if wrong else "as it must be"
        case Truth.REPAIRABLE:
            return "wrong volume" if wrong else "as it must be"
        case Truth.NOTABLE:
            told = refused or set(kind.codes) & set(verdict.notes)
            return "as it must be" if told else "accepted in silence"
        case _:
            return "as it must be" if refused else "wrong volume" if wrong else "accepted in silence"


def _counts(results: Results) -> str:
    """How often each grade was given, what nobody can tell left out."""
    lines = ["| series | " + " | ".join(_GRADES) + " |", "|---|" + "---|" * len(_GRADES)]
    for truths, what in (
        ((Truth.CLEAN, Truth.HARMLESS), "must be read"),
        ((Truth.REPAIRABLE,), "must be read or refused"),
        ((Truth.NOTABLE, Truth.HARMFUL), "must be refused or noted"),
    ):
        for reader in READERS:
            found = Counter(
                grade(kind, results.verdicts[kind.name, reader, modality])
                for kind in KINDS.values()
                if kind.truth in truths
                for modality in kind.modalities
            )
            lines.append(f"| {what}: {reader} | " + " | ".join(str(found[one]) for one in _GRADES) + " |")
    return "## In all\n\n" + "\n".join(lines) + "\n"


def _gaps() -> str:
    waiting = [f"`{kind.name}`" for kind in KINDS.values() if not kind.is_due]
    hidden = [f"`{kind.name}`" for kind in KINDS.values() if kind.truth is Truth.UNDETECTABLE]
    gaps = f"Known gaps of Limner, {len(waiting)} of the kinds: {', '.join(waiting)}." if waiting else ""
    return (
        f"{gaps or 'Limner has no known gap among these kinds.'} {len(hidden)} of them nobody can tell from the "
        f"instances, and they are not counted: {', '.join(hidden)}. Each says below who else can.\n"
    )


def _row(kind: Kind, results: Results) -> str:
    what = kind.what if not kind.who else f"{kind.what}. *Who can tell: {kind.who}.*"
    cells = list(_cells(kind, results))
    return f"| {kind.name} | {what} | {_MUST[kind.truth]} | {' | '.join(cells)} |"


def _cells(kind: Kind, results: Results) -> Iterator[str]:
    for reader in READERS:
        for modality in MODALITIES:
            verdict = results.verdicts.get((kind.name, reader, modality))
            yield "" if verdict is None else _told(kind, verdict)


def _told(kind: Kind, verdict: Verdict) -> str:
    notes = "".join(f", noted `{note}`" for note in verdict.notes)
    match verdict.outcome:
        case Outcome.REFUSED:
            return f"`{verdict.detail}`"
        case Outcome.BROKE:
            return f"**broke**: {verdict.detail}"
        case Outcome.ANOTHER:
            return f"**another volume**: {verdict.detail}{notes}"
        case Outcome.SAME:
            accepted = kind.truth in (Truth.NOTABLE, Truth.HARMFUL, Truth.UNDETECTABLE) and not notes
            return f"{'accepted' if accepted else 'read'}{notes}"
