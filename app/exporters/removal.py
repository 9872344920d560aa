"""The postprocessing that nnU-Net found to help, as the manifest's steps: labels of which one component is kept.

nnU-Net writes it twice, as ``postprocessing.pkl`` and as ``postprocessing.json``. A pickle may run anything while it is
read, so only the JSON is (``nnunetv2/postprocessing/remove_connected_components.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from app.exporters.trained import read_json

_FILE = "postprocessing"
_KNOWN = "remove_all_but_largest_component_from_segmentation"


def find_postprocessing(folder: Path) -> Path | None:
    """Return the file that belongs to the training in `folder`; None if no postprocessing was determined.

    Raises
    ------
    ImportRefused
        ``postprocessing-pickle`` if there is only a pickle, ``postprocessing-ambiguous`` if there are several.
    """
    folders = [folder, *sorted(folder.glob("crossval_results_folds_*"))]
    found = [one / f"{_FILE}.json" for one in folders if (one / f"{_FILE}.json").is_file()]
    pickles = [one / f"{_FILE}.pkl" for one in folders if (one / f"{_FILE}.pkl").is_file()]
    if len(found) > 1:
        raise ImportRefused(
            f"{folder} has several: {', '.join(str(one.relative_to(folder)) for one in found)}; name one with "
            "--postprocessing, or none with --no-postprocessing",
            code="postprocessing-ambiguous",
        )
    if not found and pickles:
        raise ImportRefused(
            f"{pickles[0]} is a pickle, which is not read because it could run anything; nnU-Net writes "
            "postprocessing.json beside it (nnUNetv2_determine_postprocessing does it again): name that file with "
            "--postprocessing, or do without by --no-postprocessing",
            code="postprocessing-pickle",
        )
    return found[0] if found else None


def read_postprocessing(path: Path) -> tuple[tuple[int, ...], ...]:
    """Return the sets of labels, in their order, of each of which only the largest component is kept.

    Raises
    ------
    ImportRefused
        ``postprocessing-pickle`` if it is a pickle, ``postprocessing-unsupported`` if it is not what nnU-Net writes or
        asks for another function.
    """
    if path.suffix != ".json":
        raise ImportRefused(
            f"{path} is not read: only postprocessing.json is, since a pickle could run anything",
            code="postprocessing-pickle",
        )
    content = read_json(path)
    try:
        steps = zip(content["postprocessing_fns"], content["postprocessing_kwargs"], strict=True)
        return tuple(_step(function, arguments) for function, arguments in steps)
    except (KeyError, TypeError, ValueError) as error:
        raise ImportRefused(
            f"{path} is not a postprocessing that can be taken over: {error!r}; do without by --no-postprocessing",
            code="postprocessing-unsupported",
        ) from error


def _step(function: str, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    if function != _KNOWN:
        raise ValueError(f"the function {function} is not known")
    if arguments.get("background_label", 0) != 0:
        raise ValueError("what is removed must become background")
    return tuple(sorted(set(_labels(arguments["labels_or_regions"]))))


def _labels(value: Any) -> Iterator[int]:
    """A label, a region of labels, or a list of either: the mask is their union."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _labels(one)
    else:
        yield int(value)
