"""The same series through the operators of the MONAI Deploy App SDK, each in a process of its own: some end in a crash.

The chain is the one of the SDK's own examples: loader, selector without rules, series to volume.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import multiprocessing
import os
import sys
import tempfile
import types
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import operators.sdk as sdk
from tests.mutations.judge import Outcome, Verdict, damaged, verdict_of
from tests.mutations.kind import Kind
from tests.mutations.series import Modality, Placed

VERSION = importlib.metadata.version("monai-deploy-app-sdk")
_SECONDS = 120


def judge_sdk(kind: Kind, modality: Modality) -> Verdict:
    """Damage the series of `modality` and say what the SDK makes of it.

    Any error that it raises counts as a refusal, since it stops the application; the detail is the error's type.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        files, truth = damaged(kind, modality, Path(folder))
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_read_in_child, args=(there, files, truth))
        child.start()
        there.close()
        answer = _answer(here)
        child.join(1)
        if child.is_alive():
            child.kill()
            child.join()
    if answer is not None:
        return Verdict(Outcome(answer[0]), answer[1])
    return Verdict(Outcome.BROKE, "no answer in time" if child.exitcode == -9 else f"exit code {child.exitcode}")


def _answer(connection: Connection) -> tuple[str, str] | None:
    """What the child sent; None if it ended without, or sends nothing."""
    if not connection.poll(_SECONDS):
        return None
    try:
        outcome, detail = connection.recv()
    except EOFError:
        return None
    return outcome, detail


def _read_in_child(connection: Connection, files: Sequence[Path], truth: Placed) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    logging.disable(logging.CRITICAL)
    verdict = verdict_of(_read, files, truth)
    # any error stops the application
    outcome = Outcome.REFUSED if verdict.outcome is Outcome.BROKE else verdict.outcome
    connection.send((str(outcome), verdict.detail))


def _read(files: Sequence[Path]) -> tuple[Placed, tuple[str, ...]]:
    """The volume as the SDK's operators give it."""
    loader, selector, to_volume = _operators()
    studies = loader.load_data_to_studies(files[0].parent)
    image = to_volume.convert_to_image(selector.filter(None, studies))
    affine = image.metadata().get("affine")
    # the SDK's affine counts column, row, slice
    turned = None if affine is None else np.asarray(affine, np.float64)[:, [2, 1, 0, 3]]
    return Placed(np.asarray(image.asnumpy(), np.float64), turned), ()


def _operators() -> tuple[Any, Any, Any]:
    _register_package()
    from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
    from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
    from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator

    fragment = sdk.Fragment()
    return (
        DICOMDataLoaderOperator(fragment, name="loader"),
        DICOMSeriesSelectorOperator(fragment, name="selector"),
        DICOMSeriesToVolumeOperator(fragment, name="to_volume", affine_lps_to_ras=False),
    )


def _register_package() -> None:
    """Make the package of operators importable without MONAI and torch, which only its ``__init__`` needs."""
    import monai.deploy

    name = "monai.deploy.operators"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder) / "operators") for folder in monai.deploy.__path__]
        package.__spec__ = importlib.util.spec_from_loader(name, loader=None, is_package=True)
        sys.modules[name] = package
