"""What an import is to make, with everything checked that can be checked without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from app.exporters.job import Job, Part
from app.exporters.removal import find_postprocessing, read_postprocessing
from app.exporters.trained import CHECKPOINT, Training, find_previous_stage, find_training
from app.exporters.triton_config import OPENVINO
from operators.errors import ModelPackageError
from operators.label_scheme import LabelScheme, read_label_scheme
from operators.model_manifest import Combination
from operators.model_package import Network, channel_names
from operators.nnunet.plans import read_configuration
from operators.segments import load_segments

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_REORIENTS = "WithReorient"
_LEAST_BATCH = 3


@dataclass(frozen=True)
class Wishes:
    """What was asked for on the command line."""

    folders: tuple[Path, ...]
    """One training; several for an ensemble or a merge."""
    segments: Path
    name: str | None = None
    version: str = "1.0.0"
    algorithm_name: str | None = None
    configuration: str | None = None
    folds: tuple[str, ...] = ()
    checkpoint: str = CHECKPOINT
    mirroring: bool = True
    tile_step_size: float = 0.5
    orientation: str | None = None
    previous_stage: Path | None = None
    merge: Path | None = None
    postprocessing: Path | None = None
    without_postprocessing: bool = False
    max_batch_size: int = 4
    threads: int = 0


def plan_job(wishes: Wishes) -> Job:
    """Look at all that was named and return what is to be made of it.

    Raises
    ------
    ImportRefused
        If anything is missing, wrong or not supported; the message says what to do.
    """
    _check_values(wishes)
    trainings = [
        find_training(folder, configuration=wishes.configuration, folds=wishes.folds, checkpoint=wishes.checkpoint)
        for folder in wishes.folders
    ]
    name = wishes.name or _default_name(trainings[0])
    check_name(name)
    merge = None if wishes.merge is None else _read_merge(wishes.merge, trainings)
    parts = _parts(wishes, name, trainings, merge)
    labels = _check_networks(parts)
    _check_agreement(parts, labels)
    job = Job(
        name=name,
        version=wishes.version,
        algorithm_name=wishes.algorithm_name or name,
        parts=parts,
        combination=_combination(trainings, merge),
        segments=wishes.segments.resolve(),
        postprocessing=_postprocessing(wishes, trainings),
        max_batch_size=wishes.max_batch_size,
        threads=wishes.threads,
    )
    _check_labels(job, labels)
    return job


def check_accelerators(accelerators: Sequence[str]) -> None:
    """See that the embedded Triton has what is asked for.

    Raises
    ------
    ImportRefused
        ``option-unusable``.
    """
    unknown = sorted(set(accelerators) - {OPENVINO})
    if unknown:
        raise ImportRefused(
            f"--accelerator can be {OPENVINO}, and is {unknown[0]}; what runs on a GPU is judged where it is served, "
            "by `limner models check --elsewhere`",
            code="option-unusable",
        )


def check_name(name: str) -> None:
    """See that a model can be called so.

    Raises
    ------
    ImportRefused
        ``name-unusable``.
    """
    if _NAME.fullmatch(name) is None:
        raise ImportRefused(
            f"the name '{name}' can't be used: 1 to 63 lower-case letters, digits, '-' and '_', starting with a letter "
            "or digit; say --name",
            code="name-unusable",
        )


def _check_values(wishes: Wishes) -> None:
    if not 0 < wishes.tile_step_size <= 1:
        raise ImportRefused(
            f"--tile-step must lie above 0 and not above 1, and is {wishes.tile_step_size:g}", code="option-unusable"
        )
    if wishes.max_batch_size < _LEAST_BATCH:
        raise ImportRefused(
            f"--max-batch-size must be {_LEAST_BATCH} or more, since so many patches at once are compared; it is "
            f"{wishes.max_batch_size}",
            code="option-unusable",
        )
    if wishes.orientation not in (None, "RAS"):
        raise ImportRefused(f"--orientation can be RAS, and is {wishes.orientation}", code="option-unusable")
    if wishes.merge is not None and len(wishes.folders) == 1:
        raise ImportRefused("--merge joins the labels of several folders, and one was named", code="option-unusable")
    if wishes.previous_stage is not None and len(wishes.folders) > 1:
        raise ImportRefused(
            "--previous-stage belongs to one cascade, and several folders were named; put each previous stage beside "
            "its folder, as nnU-Net does",
            code="option-unusable",
        )


def _default_name(training: Training) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", str(training.plans.get("dataset_name", training.folder.name)).lower())
    return words.strip("_")[:63]


def _combination(trainings: Sequence[Training], merge: object | None) -> Combination:
    if len(trainings) == 1:
        return "single"
    return "mean-of-probabilities" if merge is None else "merge"


def _parts(
    wishes: Wishes, name: str, trainings: Sequence[Training], merge: Sequence[Mapping[int, int]] | None
) -> tuple[Part, ...]:
    """All networks; a previous stage comes before the network that sees its labels."""
    parts: list[Part] = []
    for number, training in enumerate(trainings):
        model = name if number == 0 else f"{name}_part{number + 1}"
        before = find_previous_stage(training, wishes.previous_stage)
        stage = None if before is None else f"{model}_{before.configuration}"
        if before is not None and stage is not None:
            parts.append(_part(wishes, stage, before))
        values = None if merge is None else merge[number]
        parts.append(replace(_part(wishes, model, training), previous_stage=stage, label_values=values))
    return tuple(parts)


def _part(wishes: Wishes, model: str, training: Training) -> Part:
    turns = str(training.plans.get("image_reader_writer", "")).endswith(_REORIENTS)
    return Part(
        model=model,
        training=training,
        mirroring=wishes.mirroring,
        tile_step_size=wishes.tile_step_size,
        orientation=wishes.orientation or ("RAS" if turns else None),
    )


def _check_networks(parts: Sequence[Part]) -> dict[str, LabelScheme]:
    """Let the image path itself say whether it can run each network, and return what their heads mean."""
    schemes: dict[str, LabelScheme] = {}
    networks: dict[str, Network] = {}
    for part in parts:
        training = part.training
        try:
            schemes[part.model] = read_label_scheme(training.dataset)
            networks[part.model] = Network(
                name=part.model,
                triton_version="1",
                weights_digest="",
                plans=training.plans,
                dataset=training.dataset,
                labels=schemes[part.model],
                configuration=training.configuration,
                tile_step_size=part.tile_step_size,
                orientation=part.orientation,
                previous_stage=networks.get(part.previous_stage or ""),
            )
            read_configuration(networks[part.model])
        except (KeyError, TypeError, ValueError) as error:
            raise ImportRefused(
                f"{training.folder}/dataset.json does not describe labels as nnU-Net v2 does: {error}",
                code="labels-unreadable",
            ) from error
        except ModelPackageError as error:
            raise ImportRefused(str(error), code=error.code) from error
    return schemes


def _check_agreement(parts: Sequence[Part], labels: Mapping[str, LabelScheme]) -> None:
    """Networks of one package see the same images, and those whose probabilities are averaged have the same heads."""
    first = parts[0]
    for part in parts[1:]:
        ours, theirs = channel_names(first.training.dataset), channel_names(part.training.dataset)
        if ours != theirs:
            raise ImportRefused(
                f"{first.model} takes the images {', '.join(ours)} and {part.model} takes {', '.join(theirs)}; one "
                "package takes the same for all its networks",
                code="channels-differ",
            )
    stages = {part.previous_stage for part in parts}
    final = [part for part in parts if part.model not in stages]
    for part in final:
        if part.label_values is None and labels[part.model] != labels[final[0].model]:
            raise ImportRefused(
                f"{final[0].model} and {part.model} have different labels; to join those of several trainings say "
                "which becomes which with --merge",
                code="labels-differ",
            )
        if part.previous_stage is not None and labels[part.previous_stage] != labels[part.model]:
            raise ImportRefused(
                f"{part.previous_stage} has other labels than {part.model}, which sees them; name the training of its "
                "own previous stage with --previous-stage",
                code="labels-differ",
            )


def _check_labels(job: Job, labels: Mapping[str, LabelScheme]) -> None:
    """The segments file codes what can be painted, no less and no more, and postprocessing speaks of the same."""
    try:
        coded = {segment.label_value: segment.label for segment in load_segments(job.segments)}
    except ModelPackageError as error:
        raise ImportRefused(f"--segments {job.segments}: {error}", code="segments-unreadable") from error
    named: dict[int, str] = {}
    stages = {part.previous_stage for part in job.parts}
    for part in job.parts:
        if part.model not in stages:
            named |= _painted(part, labels[part.model])
    missing = [f"{value} ({named[value]})" for value in sorted(named) if value not in coded]
    beyond = [f"{value} ({coded[value]})" for value in sorted(coded) if value not in named]
    if missing or beyond:
        parts = [f"lacks the labels {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(beyond)}, which the model never paints"] if beyond else []
        raise ImportRefused(
            f"--segments {job.segments.name} {' and '.join(parts)}; give each label of dataset.json its codes",
            code="labels-differ",
        )
    unknown = sorted({value for step in job.postprocessing for value in step} - set(named))
    if unknown:
        raise ImportRefused(
            f"the postprocessing speaks of the labels {unknown}, which the model never paints; name another with "
            "--postprocessing, or do without by --no-postprocessing",
            code="labels-differ",
        )


def _painted(part: Part, scheme: LabelScheme) -> dict[int, str]:
    """The values that a label map can hold, each with a name from ``dataset.json`` where it has one."""
    names = _values_by_name(part.training.dataset)
    known = {value: name for name, value in names.items()}
    own = {value: known.get(value, "unnamed") for value in scheme.painted}
    if part.label_values is None:
        return own
    return {common: own[value] for value, common in part.label_values.items()}


def _values_by_name(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Names of single labels; a region of several has no value of its own."""
    found = {}
    for name, value in dataset["labels"].items():
        members = value if isinstance(value, list) else [value]
        if len(members) == 1:
            found[str(name)] = int(members[0])
    return found


def _read_merge(path: Path, trainings: Sequence[Training]) -> list[dict[int, int]]:
    """One mapping a folder, in their order: its own label (name or value) to the common value."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [_label_values(one, training) for one, training in zip(_listed(content), trainings, strict=True)]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ImportRefused(f"--merge {path}: {error}", code="merge-unreadable") from error


def _listed(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError("it must be a list of objects, one for each folder in their order")
    return content


def _label_values(mapping: Mapping[str, Any], training: Training) -> dict[int, int]:
    try:
        painted, names = read_label_scheme(training.dataset).painted, _values_by_name(training.dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{training.folder.name}/dataset.json does not describe labels: {error}") from error
    values = {}
    for own, common in mapping.items():
        value = names[own] if own in names else int(own) if own.isdecimal() else None
        if value not in painted:
            raise ValueError(f"{own} is no label of {training.folder}; it has {', '.join(names)}")
        if not isinstance(common, int) or common < 1:
            raise ValueError(f"{own} must become a label of 1 or more, not {common!r}")
        values[int(value)] = common
    return values


def _postprocessing(wishes: Wishes, trainings: Sequence[Training]) -> tuple[tuple[int, ...], ...]:
    """What was named; else what nnU-Net found for a single training. That of an ensemble lies elsewhere."""
    if wishes.without_postprocessing:
        return ()
    path = wishes.postprocessing
    if path is None and len(trainings) == 1:
        path = find_postprocessing(trainings[0].folder)
    return () if path is None else read_postprocessing(path)
