"""Puts whole models into the model repository: staged beside it, renamed into place. There is never half a model."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import ImportRefused
from operators.errors import ModelPackageError
from operators.model_folder import read_json
from operators.model_manifest import MANIFEST_FILE, folder_name
from operators.shared_memory import is_running, process_mark


@contextlib.contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Give a folder beside the repository, and remove it in the end, as well as those of imports that were killed.

    It can't lie within: a Triton that starts takes every folder there for a model.

    Raises
    ------
    ImportRefused
        ``repository-unwritable`` if there is no such place.
    """
    prefix = f".{repository.name}-import-"
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for left in repository.parent.glob(f"{prefix}*"):
            if not is_running(left.name.removeprefix(prefix).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{process_mark()}-", dir=repository.parent))
    except OSError as error:
        raise ImportRefused(
            f"{repository.parent} can't be written ({error.strerror}), and a model is put together there before it is "
            f"moved into {repository.name}; make it writable, or set model_repository",
            code="repository-unwritable",
        ) from error
    try:
        _check_same_file_system(folder, repository)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_same_file_system(folder: Path, repository: Path) -> None:
    if folder.stat().st_dev != repository.stat().st_dev:
        raise ImportRefused(
            f"{repository} is a file system of its own, and a model is put together beside it before it is moved in; "
            "set model_repository to a folder within that file system",
            code="repository-unwritable",
        )


def check_free(repository: Path, package: str, models: Sequence[str], *, replace: bool) -> None:
    """See that the folders of a new package are free, or belong to the package that it replaces.

    Raises
    ------
    ImportRefused
        ``model-exists``.
    """
    own = _models_of(repository / package) if replace else set()
    taken = [name for name in models if (repository / name).exists() and name not in own]
    if taken:
        hint = (
            "it belongs to another model: choose another --name"
            if replace
            else "choose another --name, or --replace it"
        )
        raise ImportRefused(f"{repository} holds {', '.join(taken)} already; {hint}", code="model-exists")


def publish(staged: Path, repository: Path, package: str, models: Sequence[str], *, replace: bool) -> None:
    """Move the folders `models` from `staged` into `repository`, that of the package itself last.

    With `replace` the former package is moved out first; if anything fails, all is put back.

    Raises
    ------
    ImportRefused
        ``model-exists``, or ``repository-unwritable``.
    """
    check_free(repository, package, models, replace=replace)
    for name in models:
        _sync(staged / name)
    former = staged / "former"
    former.mkdir()
    out = [name for name in sorted(_models_of(repository / package)) if replace and (repository / name).is_dir()]
    moves = [(repository / name, former / name) for name in out]
    moves += [(staged / name, repository / name) for name in sorted(models, key=lambda name: name == package)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
        _sync_folder(repository)
    except OSError as error:
        for source, target in reversed(done):
            target.rename(source)
        raise ImportRefused(
            f"the model could not be moved into {repository} ({error.strerror}); nothing was changed",
            code="repository-unwritable",
        ) from error


def _models_of(package: Path) -> set[str]:
    """The folders of a package that is there: its own, and its networks'."""
    try:
        networks = read_json(package / MANIFEST_FILE)["networks"]
        entries = networks.values() if isinstance(networks, dict) else networks
        return {package.name, *(folder_name(entry["model"]) for entry in entries)}
    except (ModelPackageError, KeyError, TypeError, ValueError):
        return {package.name}


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
