"""`limner models list`, `check` and `build-engine`: what lies in the repository, is it whole, does it compute alike."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ImportRefused
from app.exporters.environment import run_task
from app.exporters.parity import DERIVED, Scale, fixed_volumes
from app.exporters.sam.checking import check_generalist
from app.exporters.sam.importing import load_generalist
from app.exporters.served import Infer, copy_model, judge_served, keep_answers, served_model, serving
from app.exporters.served_parting import search_of
from app.settings import Settings
from operators.durable import write_durably
from operators.errors import ModelPackageError
from operators.model_manifest import MANIFEST_FILE
from operators.model_package import ModelPackage, Network
from operators.nnunet.plans import check_supported, read_configuration
from operators.sam.package import GeneralistPackage, is_generalist

Progress = Callable[[str], None]
Figures = Mapping[str, list[dict[str, Any]]]
"""How each class of each network fared."""

LITE_MEDSAM = "lite_medsam"
"""A model that comes with Limner but for its weights."""
_NORMALISED = Scale(-3, 3, -3, 3)
"""Of a model that was not imported, and so does not say at which scale its volumes lie."""


@dataclass(frozen=True)
class Listed:
    """One package of the repository."""

    name: str
    package: ModelPackage | GeneralistPackage | None
    problem: str
    """Why it can't be used; empty if it can."""


def list_models(repository: Path) -> Iterator[Listed]:
    """Yield the packages in `repository` by name: its folders that have a manifest or a card."""
    for folder in sorted(path for path in repository.glob("*/") if path.is_dir()):
        if (folder / MANIFEST_FILE).is_file() or (folder / "model_card.md").is_file():
            try:
                yield Listed(folder.name, load_model(folder), "")
            except ImportRefused as error:
                yield Listed(folder.name, None, str(error))


def load_model(folder: Path) -> ModelPackage | GeneralistPackage:
    """Read a package of either kind; its manifest says of which it is.

    Raises
    ------
    ImportRefused
        By the code of what is wrong with it.
    """
    if not folder.is_dir():
        hint = "; `make lite-medsam` puts this one there" if folder.name == LITE_MEDSAM else ""
        raise ImportRefused(
            f"there is no model {folder.name} in {folder.parent}; `limner models import` brings one in{hint}",
            code="file-missing",
        )
    return load_generalist(folder) if is_generalist(folder) else load_package(folder)


def load_package(folder: Path) -> ModelPackage:
    """Read a package and see that all its networks can be run.

    Raises
    ------
    ImportRefused
        By the code of what is wrong with it.
    """
    try:
        package = ModelPackage.load(folder)
        check_supported(package)
    except ModelPackageError as error:
        raise ImportRefused(str(error), code=error.code) from error
    return package


def check_configuration(settings: Settings, name: str, configuration: str, progress: Progress) -> Figures:
    """Compare a model served by one of its ``configs/`` with itself served by ``config.pbtxt``, by the derived limits.

    Raises
    ------
    ImportRefused
        ``parity-refused``, ``served-failed``, ``configuration-missing``, or what `load_package` raises.
    """
    package = load_model(settings.model_repository / name)
    if isinstance(package, GeneralistPackage):
        return check_generalist(settings, package, configuration, progress)
    with tempfile.TemporaryDirectory(prefix="limner-check-") as scratch:
        folder = Path(scratch)
        progress(f"the embedded Triton serves {name} by config.pbtxt")
        with _staged(settings, package, folder, None) as target:
            _keep_answers(settings, package, target, folder / "gate")
        progress(f"the embedded Triton serves {name} by {configuration}")
        with _staged(settings, package, folder, configuration) as target:
            return _judge(settings, package, target, folder / "gate", f"with {configuration}", configuration)


def check_elsewhere(settings: Settings, name: str, progress: Progress) -> Figures:
    """Compare a model as the Triton at ``triton.address`` serves it with itself on the embedded one.

    This is how an engine or a configuration for a GPU is judged: where it is served.

    Raises
    ------
    ImportRefused
        ``triton-address-missing``, ``parity-refused``, ``served-failed``, or what `load_package` raises.
    """
    address = next(iter(settings.triton.addresses), None)
    if address is None:
        raise ImportRefused(
            "there is no other Triton to compare with: name its gRPC address in triton.address",
            code="triton-address-missing",
        )
    package = load_model(settings.model_repository / name)
    if isinstance(package, GeneralistPackage):
        return check_generalist(settings, package, None, progress)
    with tempfile.TemporaryDirectory(prefix="limner-check-") as scratch:
        folder = Path(scratch)
        progress(f"the embedded Triton serves {name} by config.pbtxt")
        with _staged(settings, package, folder, None) as target:
            _keep_answers(settings, package, target, folder / "gate")
        progress(f"the Triton at {address} is compared with it")
        return _judge(settings, package, address, folder / "gate", f"at {address}")


@contextmanager
def _staged(settings: Settings, package: ModelPackage, folder: Path, configuration: str | None) -> Iterator[str]:
    """Serve copies of the package's networks by one of their configurations, and give the server's address."""
    repository = folder / f"repository-{configuration or 'default'}"
    repository.mkdir()
    for network in package.all_networks:
        copy_model(package.folder.parent / network.name, repository, configuration)
    with serving(settings, repository, folder / "run") as triton:
        yield triton.target


def _keep_answers(settings: Settings, package: ModelPackage, target: str, gate: Path) -> None:
    manifest = json.loads((package.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    for network in package.all_networks:
        with _served(settings, target, network) as infer:
            keep_answers(infer, _volumes(network, manifest), gate / network.name)


def _judge(
    settings: Settings, package: ModelPackage, target: str, gate: Path, how: str, configuration: str | None = None
) -> Figures:
    figures = {}
    for network in package.all_networks:
        with _served(settings, target, network) as infer:
            figures[network.name] = judge_served(
                network.name,
                infer,
                gate / network.name,
                network.dataset,
                DERIVED,
                how,
                search_of(settings, package.folder.parent / network.name, configuration),
            )
    return figures


def _served(settings: Settings, target: str, network: Network) -> AbstractContextManager[Infer]:
    return served_model(settings, target, network.name, _shapes(network), version=network.triton_version)


def build_engine(settings: Settings, name: str, precision: str, progress: Progress) -> None:
    """Build a TensorRT engine for each network of a package and write what came of it into its manifest.

    Raises
    ------
    ImportRefused
        ``tensorrt-missing``, ``engine-failed``, ``parity-refused``, or what `load_package` raises.
    """
    package = load_package(settings.model_repository / name)
    path = package.folder / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    engines = manifest.setdefault("engines", {})
    for network in package.all_networks:
        folder = package.folder.parent / network.name
        request = {"task": "engine", "folder": str(folder), "precision": precision}
        engines[network.name] = run_task(settings.models.exporter_python, request, progress)
    write_durably(path, (json.dumps(manifest, indent=2) + "\n").encode())


def _shapes(network: Network) -> tuple[tuple[int, ...], tuple[int, ...]]:
    planned = read_configuration(network)
    return (planned.channels, *planned.patch_size), (planned.labels.heads, *planned.patch_size)


def _volumes(network: Network, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    channels, *patch = _shapes(network)[0]
    known = manifest.get("parity", {}).get("networks", {}).get(network.name)
    scales = [_NORMALISED] * channels if known is None else [Scale(**one) for one in known["scales"]]
    return fixed_volumes(scales, patch)
