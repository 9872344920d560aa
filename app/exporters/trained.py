"""What nnU-Net leaves behind when it has trained, looked at without torch: which folds, which checkpoint, which labels.

::

    nnUNet_results/Dataset003_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres/     the folder of one training
        plans.json  dataset.json
        fold_0/checkpoint_final.pth  …  fold_all/
        crossval_results_folds_0_1_2_3_4/postprocessing.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ImportRefused

CHECKPOINT = "checkpoint_final.pth"
ALL = "all"
_FOLD = "fold_"
_SEPARATOR = "__"
_PARTS = 3


@dataclass(frozen=True)
class Training:
    """The folder of one training, and what of it is to be used."""

    folder: Path
    configuration: str
    """Which of the planned configurations was trained."""
    folds: tuple[str, ...]
    """The folds to use: numbers, or "all" for the one that was trained on all cases."""
    checkpoint: str
    """The file's name in each fold."""
    plans: dict[str, Any]
    dataset: dict[str, Any]

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The file of each fold."""
        return tuple(self.folder / f"{_FOLD}{fold}" / self.checkpoint for fold in self.folds)

    @property
    def planned(self) -> dict[str, Any]:
        """The plans of its configuration, with what it inherits from others."""
        return planned(self.plans, self.configuration)


def find_training(
    folder: Path, *, configuration: str | None = None, folds: Sequence[str] = (), checkpoint: str = CHECKPOINT
) -> Training:
    """Look at `folder` and choose what is to be used.

    Parameters
    ----------
    folder
        The folder of one training, or one that holds several of them.
    configuration
        Which one is meant where there are several, or what was trained where the folder's name does not say it.
    folds
        The folds to use; none for every numbered fold that has the checkpoint, and fold ``all`` if there is no other.
    checkpoint
        The file's name in each fold.

    Raises
    ------
    ImportRefused
        ``training-missing``, ``training-ambiguous``, ``training-unreadable``, ``configuration-missing``,
        ``fold-missing`` or ``checkpoint-missing``; the message says what is there and what to do.
    """
    folder = _one_training(folder.resolve(), configuration)
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    chosen = _configuration(folder, plans, configuration)
    return Training(
        folder=folder,
        configuration=chosen,
        folds=_folds(folder, folds, checkpoint),
        checkpoint=checkpoint,
        plans=plans,
        dataset=dataset,
    )


def find_previous_stage(training: Training, given: Path | None) -> Training | None:
    """Return the training of the previous stage of a cascade; None if `training` has none.

    Parameters
    ----------
    given
        Its folder; else it is looked for beside, under the same trainer and plans.

    Raises
    ------
    ImportRefused
        ``previous-stage-missing`` if it is not found, and all that `find_training` raises.
    """
    name = training.planned.get("previous_stage")
    if name is None:
        if given is not None:
            raise ImportRefused(
                f"{training.configuration} of {training.folder.name} has no previous stage; leave --previous-stage out",
                code="previous-stage-missing",
            )
        return None
    if given is None:
        *start, _ = training.folder.name.split(_SEPARATOR)
        given = training.folder.parent / _SEPARATOR.join([*start, str(name)])
        if not given.is_dir():
            raise ImportRefused(
                f"{training.configuration} sees the labels of {name}, and there is no {given.name} beside it; name the "
                "folder of that training with --previous-stage",
                code="previous-stage-missing",
            )
    wanted = training.folds if all(_has(given, fold, training.checkpoint) for fold in training.folds) else ()
    return find_training(given, configuration=str(name), folds=wanted, checkpoint=training.checkpoint)


def planned(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return one configuration of the plans with what it takes over from others (``inherits_from``).

    Raises
    ------
    ImportRefused
        ``configuration-missing`` if there is none of that name, ``training-unreadable`` if they inherit in a circle.
    """
    found: dict[str, Any] = {}
    name, heirs = configuration, [configuration]
    while True:
        if name not in plans["configurations"]:
            raise ImportRefused(
                f"plans.json has no configuration {name}; it has {_listed(plans['configurations'])}",
                code="configuration-missing",
            )
        found = {**plans["configurations"][name], **found}
        parent = plans["configurations"][name].get("inherits_from")
        if parent is None:
            found.pop("inherits_from", None)
            return found
        if parent in heirs:
            raise ImportRefused(f"plans.json: {_listed(heirs)} inherit from each other", code="training-unreadable")
        name = parent
        heirs.append(parent)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that nnU-Net wrote.

    Raises
    ------
    ImportRefused
        ``training-missing`` if there is no such file, ``training-unreadable`` if it holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ImportRefused(
            f"{path.parent} has no {path.name}; name the folder that nnU-Net trained into, which holds plans.json, "
            "dataset.json and fold_…",
            code="training-missing",
        ) from error
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path} can't be read as JSON: {error}", code="training-unreadable") from error
    if not isinstance(content, dict):
        raise ImportRefused(f"{path} must hold a JSON object", code="training-unreadable")
    return content


def _one_training(folder: Path, configuration: str | None) -> Path:
    """`folder` itself, or the one training in it that was meant."""
    if not folder.is_dir():
        raise ImportRefused(f"there is no folder {folder}", code="training-missing")
    if (folder / "plans.json").is_file():
        return folder
    trainings = sorted(path.parent for path in folder.glob("*/plans.json"))
    meant = [one for one in trainings if configuration in (None, one.name.split(_SEPARATOR)[-1])]
    if len(meant) == 1:
        return meant[0]
    if not trainings:
        raise ImportRefused(
            f"{folder} is no training of nnU-Net v2, and holds none: there is no plans.json (a plans.pkl is of nnU-Net "
            "v1, which is not supported)",
            code="training-missing",
        )
    listed = "\n".join(f"  {one.name}" for one in trainings)
    raise ImportRefused(
        f"{folder} holds several trainings; name one of these folders, or choose with --configuration:\n{listed}",
        code="training-ambiguous",
    )


def _configuration(folder: Path, plans: Mapping[str, Any], wanted: str | None) -> str:
    known = plans.get("configurations")
    if not isinstance(known, Mapping) or not known:
        raise ImportRefused(
            f"{folder}/plans.json has no 'configurations', as nnU-Net v2 writes them; plans of nnU-Net v1 are not "
            "supported: plan and train with v2",
            code="training-unreadable",
        )
    name = folder.name.split(_SEPARATOR)
    said = name[-1] if len(name) == _PARTS else None
    chosen = wanted or said or (next(iter(known)) if len(known) == 1 else None)
    if chosen is None:
        raise ImportRefused(
            f"the name of {folder.name} does not end in the configuration that was trained; choose one of "
            f"{_listed(known)} with --configuration",
            code="training-ambiguous",
        )
    if chosen not in known:
        raise ImportRefused(
            f"plans.json has no configuration {chosen}; it has {_listed(known)}", code="configuration-missing"
        )
    return str(chosen)


def _folds(folder: Path, wanted: Sequence[str], checkpoint: str) -> tuple[str, ...]:
    present = sorted(path.name.removeprefix(_FOLD) for path in folder.glob(f"{_FOLD}*") if path.is_dir())
    if not present:
        raise ImportRefused(f"{folder} has no fold_… folder: nothing was trained there", code="fold-missing")
    missing = [fold for fold in wanted if fold not in present]
    if missing:
        raise ImportRefused(
            f"{folder} has no fold {_listed(missing)}; it has {_listed(present)}: choose of these with --folds",
            code="fold-missing",
        )
    complete = [fold for fold in present if _has(folder, fold, checkpoint)]
    chosen = tuple(wanted or [fold for fold in complete if fold != ALL] or complete)
    lacking = [fold for fold in chosen or present if fold not in complete]
    if lacking:
        raise ImportRefused(
            f"fold {_listed(lacking)} has no {checkpoint}; {_checkpoints(folder, lacking)}", code="checkpoint-missing"
        )
    return tuple(dict.fromkeys(chosen))


def _checkpoints(folder: Path, folds: Sequence[str]) -> str:
    found = sorted({path.name for fold in folds for path in (folder / f"{_FOLD}{fold}").glob("*.pth")})
    if not found:
        return "it has none at all: was the training ended?"
    return f"it has {_listed(found)}: choose one with --checkpoint, or finish the training"


def _has(folder: Path, fold: str, checkpoint: str) -> bool:
    return (folder / f"{_FOLD}{fold}" / checkpoint).is_file()


def _listed(names: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in names)
