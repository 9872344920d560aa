"""A model's folder in the Triton model repository, read and checked as one thing.

::

    triton_models/<name>/
        manifest.json      the networks it is made of, how they are run, and the digests of all of it
        segments.json      the labels' codes, as dcmqi metainfo JSON
        model_card.md      for people; its YAML front matter names version and algorithm
    and for each network, in this folder or in one beside it
        config.pbtxt       what Triton reads
        plans.json         nnU-Net's plans: spacing, patch, normalisation, resampling
        dataset.json       nnU-Net's channels and labels
        <n>/model.onnx     the weights; the highest number is served

Most models are one network in one folder. A cascade or an ensemble has more; its other networks lie in folders of their
own beside it, because a folder is what Triton serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from operators.errors import ModelPackageError
from operators.gate.intended_use import IntendedUse, read_intended_use
from operators.label_scheme import LabelScheme, read_label_scheme
from operators.model_folder import card_text, file_digest, newest_version, present, read_card, read_json, weights_files
from operators.model_manifest import MANIFEST_FILE, Combination, NetworkEntry, read_manifest

SEGMENTS_FILE = "segments.json"
"""What a model's labels are: dcmqi metainfo JSON (`operators.segments`)."""


@dataclass(frozen=True)
class Network:
    """One network of a model, as one Triton model serves it."""

    name: str
    """Its folder's name, by which Triton serves it."""
    triton_version: str
    """The numbered folder that is served."""
    weights_digest: str
    """SHA-256 of the served weights, 64 hexadecimal digits."""
    plans: dict[str, Any]
    """nnU-Net's ``plans.json``."""
    dataset: dict[str, Any]
    """nnU-Net's ``dataset.json``."""
    labels: LabelScheme
    """What its heads mean, from ``dataset.json``."""
    configuration: str
    """Which of the planned configurations it is."""
    mirroring_axes: tuple[int, ...] = ()
    """Spatial axes along which tiles are also seen mirrored."""
    tile_step_size: float = 0.5
    """Step between tiles as a share of a tile."""
    orientation: str | None = None
    """How the arrays it was trained on were turned ("RAS"); None: as a reader finds them."""
    previous_stage: Network | None = None
    """The network whose labels it sees beside the image: a cascade."""
    label_values: Mapping[int, int] | None = None
    """In a merge, the model's label for each of its own."""

    def stages(self) -> Iterator[Network]:
        """Yield the networks that must run, in their order; this one comes last."""
        if self.previous_stage is not None:
            yield from self.previous_stage.stages()
        yield self


@dataclass(frozen=True)
class ModelPackage:
    """What one model is: its networks, how to feed them, what they find and who says so."""

    folder: Path
    """The model's folder."""
    name: str
    """The folder's name."""
    version: str
    """The model's own version, from its card."""
    algorithm_name: str
    """What results call it (Algorithm Name, PS3.3 10.16)."""
    segments_path: Path
    """The labels' codes, dcmqi metainfo JSON."""
    card: Mapping[str, Any]
    """The card's front matter."""
    networks: tuple[Network, ...]
    """Those whose results are combined; they know their previous stages."""
    combination: Combination
    """How: one alone, the mean of probabilities, or a merge in this order."""
    postprocessing: tuple[tuple[int, ...], ...]
    """Of each of these sets of labels, in this order, only the largest connected component is kept."""
    intended_use: IntendedUse = IntendedUse()
    """The acquisitions that its card says it is for."""

    @property
    def all_networks(self) -> tuple[Network, ...]:
        """Every network once, in the order in which they run."""
        return tuple({network.name: network for last in self.networks for network in last.stages()}.values())

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights, 64 hexadecimal digits; of several networks, of their names and digests."""
        if len(self.all_networks) == 1:
            return self.all_networks[0].weights_digest
        listed = "".join(f"{network.weights_digest}  {network.name}\n" for network in self.all_networks)
        return hashlib.sha256(listed.encode()).hexdigest()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The images it takes, in their order; all its networks take the same."""
        return channel_names(self.networks[0].dataset)

    @classmethod
    def load(cls, folder: Path) -> ModelPackage:
        """Read and check the model in `folder`.

        Raises
        ------
        ModelPackageError
            If a file is missing (``file-missing``), can't be read (``file-unreadable``), is another than the manifest
            says (``file-differs``), or contradicts another (``labels-differ``); if the card states what can't be
            checked (``card-malformed``).
        """
        folder = folder.resolve()
        if not folder.is_dir():
            raise ModelPackageError(f"no model folder {folder.name} in the model repository", code="file-missing")
        card = read_card(folder)
        manifest = read_manifest(present(folder, MANIFEST_FILE))
        segments_path = present(folder, SEGMENTS_FILE)
        entries = {entry.model: entry for entry in manifest.networks}
        loaded = {name: _load_network(folder.parent / name, entry) for name, entry in entries.items()}
        stages = {entry.previous_stage for entry in manifest.networks}
        final = tuple(_staged(entries[name], entries, loaded) for name in entries if name not in stages)
        package = cls(
            folder=folder,
            name=folder.name,
            version=card_text(card, "version", folder.name),
            algorithm_name=card_text(card, "algorithm_name", folder.name),
            segments_path=segments_path,
            card=card,
            networks=final,
            combination=manifest.combination,
            postprocessing=manifest.postprocessing,
            intended_use=read_intended_use(card, folder.name),
        )
        _check_agreement(package, read_json(segments_path))
        return package


def channel_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the images that ``dataset.json`` lists, in the order of its numbers.

    Raises
    ------
    ModelPackageError
        ``file-unreadable`` if they are not named and numbered as nnU-Net does.
    """
    names = dataset.get("channel_names") or dataset.get("modality")
    numbered = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
    if not isinstance(names, dict) or not names or set(names) != set(numbered):
        raise ModelPackageError(
            'dataset.json must hold channel_names, numbered from "0" without gaps', code="file-unreadable"
        )
    return tuple(str(names[number]) for number in numbered)


def _load_network(folder: Path, entry: NetworkEntry) -> Network:
    """A network without its previous stage."""
    if not folder.is_dir():
        raise ModelPackageError(f"no model folder {folder.name} in the model repository", code="file-missing")
    present(folder, "config.pbtxt")
    version = newest_version(folder)
    for files, expected in (
        (weights_files(folder / version), entry.weights_sha256),
        ([present(folder, "plans.json")], entry.plans_sha256),
        ([present(folder, "dataset.json")], entry.dataset_sha256),
    ):
        if file_digest(*files) != expected:
            raise ModelPackageError(
                f"{folder.name}/{files[0].relative_to(folder)} is another file than the manifest names; "
                "import the model again",
                code="file-differs",
            )
    dataset = read_json(folder / "dataset.json")
    return Network(
        name=folder.name,
        triton_version=version,
        weights_digest=entry.weights_sha256,
        plans=read_json(folder / "plans.json"),
        dataset=dataset,
        labels=_label_scheme(dataset, folder.name),
        configuration=entry.configuration,
        mirroring_axes=entry.mirroring_axes,
        tile_step_size=entry.tile_step_size,
        orientation=entry.orientation,
        label_values=entry.label_values,
    )


def _staged(entry: NetworkEntry, entries: Mapping[str, NetworkEntry], loaded: Mapping[str, Network]) -> Network:
    """The network of `entry` with its previous stages."""
    network = loaded[entry.model]
    if entry.previous_stage is None:
        return network
    return replace(network, previous_stage=_staged(entries[entry.previous_stage], entries, loaded))


def _label_scheme(dataset: Mapping[str, Any], name: str) -> LabelScheme:
    try:
        return read_label_scheme(dataset)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelPackageError(
            f"{name}/dataset.json does not describe labels as nnU-Net v2 does: {error}", code="file-unreadable"
        ) from error


def _check_agreement(package: ModelPackage, metainfo: Mapping[str, Any]) -> None:
    """Every label that can be painted has a code, and every code a label; all networks take the same images."""
    try:
        coded = {segment["labelID"] for group in metainfo["segmentAttributes"] for segment in group}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelPackageError(
            f"{package.name}/segments.json must hold segmentAttributes with labelID", code="file-unreadable"
        ) from error
    painted: set[int] = set()
    for network in package.networks:
        values = network.label_values
        if values is not None and not set(values) <= network.labels.painted:
            raise ModelPackageError(
                f"the manifest of {package.name} maps labels that {network.name} does not paint", code="labels-differ"
            )
        painted |= network.labels.painted if values is None else set(values.values())
    if painted != coded:
        raise ModelPackageError(
            f"model {package.name} paints the labels {sorted(painted)} and segments.json codes {sorted(coded)}",
            code="labels-differ",
        )
    if len({channel_names(network.dataset) for network in package.all_networks}) > 1:
        raise ModelPackageError(f"the networks of {package.name} take different images", code="channels-differ")
    if package.combination == "mean-of-probabilities" and len({network.labels for network in package.networks}) > 1:
        raise ModelPackageError(f"the networks of {package.name} have different labels", code="labels-differ")
