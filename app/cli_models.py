"""`limner models …`: bring trained networks in, and look at those that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from app.errors import ImportRefused
from app.exporters.sam.variants import known_variants
from app.exporters.trained import CHECKPOINT
from app.settings import load_settings
from app.terminal import JsonOption, SettingsOption, console, errors, print_json, say, table

if TYPE_CHECKING:  # the commands import what they compute with: seconds that no other command waits for
    from app.exporters import checking
    from operators.model_package import ModelPackage
    from operators.sam.package import GeneralistPackage

commands = typer.Typer(help="The models: bring trained ones in, look at those that are there.", no_args_is_help=True)
import_commands = typer.Typer(help="Make a model of what a training left behind.", no_args_is_help=True)
commands.add_typer(import_commands, name="import")


@import_commands.command("nnunet")
def import_nnunet_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER…", help="What nnU-Net trained into; several for an ensemble, or a merge with --merge."
        ),
    ],
    segments: Annotated[
        Path, typer.Option(help="dcmqi metainfo JSON: codes and colour of each label.", exists=True, dir_okay=False)
    ],
    settings: SettingsOption = None,
    name: Annotated[str | None, typer.Option(help="What the model is called; after the data set else.")] = None,
    version: Annotated[str, typer.Option(help="The model's own version.")] = "1.0.0",
    algorithm_name: Annotated[
        str | None, typer.Option(help="What results call it (Algorithm Name); its name else.")
    ] = None,
    configuration: Annotated[
        str | None, typer.Option(help="Which training is meant where FOLDER holds several, such as 3d_fullres.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds whose logits are averaged, as in 0,1,2; or all, for the fold called so. Without it every "
            "numbered fold, or fold all if there is no other."
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="The checkpoint's file name in each fold.")] = CHECKPOINT,
    mirroring: Annotated[
        bool, typer.Option("--mirroring/--no-mirroring", help="See tiles mirrored too, where the training allows it.")
    ] = True,
    tile_step: Annotated[float, typer.Option(help="Step between tiles, as a share of a tile.")] = 0.5,
    orientation: Annotated[
        str | None,
        typer.Option(
            help="RAS if images were turned so before training (TotalSegmentator); known by itself for …WithReorient."
        ),
    ] = None,
    previous_stage: Annotated[
        Path | None, typer.Option(help="The training whose labels a cascade sees; looked for beside FOLDER else.")
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(help="JSON: a list with one object a FOLDER, its own label (name or value) -> the common value."),
    ] = None,
    postprocessing: Annotated[
        Path | None, typer.Option(help="nnU-Net's postprocessing.json; looked for in FOLDER else.")
    ] = None,
    no_postprocessing: Annotated[bool, typer.Option("--no-postprocessing", help="Leave it out.")] = False,
    max_batch_size: Annotated[int, typer.Option(help="Tiles in one request, at most.")] = 4,
    threads: Annotated[int, typer.Option(help="Of one instance on the CPU; 0 for as many as there are cores.")] = 0,
    accelerator: Annotated[
        list[str] | None,
        typer.Option(help="openvino: judge the model with it too, and publish its configuration if it passes."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the model of that name.")] = False,
) -> None:
    """Export folds to ONNX, compare them with torch, serve them, compare again, and publish what passes.

    Exit code 1 if anything speaks against it; nothing is published then.
    """
    from app.exporters.importing import import_nnunet
    from app.exporters.planning import Wishes

    wishes = Wishes(
        folders=tuple(folders),
        segments=segments,
        name=name,
        version=version,
        algorithm_name=algorithm_name,
        configuration=configuration,
        folds=tuple(part.strip() for part in folds.split(",") if part.strip()) if folds else (),
        checkpoint=checkpoint,
        mirroring=mirroring,
        tile_step_size=tile_step,
        orientation=orientation,
        previous_stage=previous_stage,
        merge=merge,
        postprocessing=postprocessing,
        without_postprocessing=no_postprocessing,
        max_batch_size=max_batch_size,
        threads=threads,
    )
    with _refusals_named():
        package = import_nnunet(
            load_settings(settings), wishes, replace=replace, accelerators=accelerator or (), progress=_progress
        )
    say(
        ("✓", "green"),
        f" {package.name} {package.version} is in {package.folder.parent}; weights {package.weights_digest[:12]}…",
    )
    say("  → fill in model_card.md and validate it; then name it in a [[pipeline]]")


@import_commands.command("sam")
def import_sam_command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What was trained: .pth, .pt or .safetensors.")
    ],
    variant: Annotated[
        str, typer.Option(help=f"{', '.join(known_variants())}; or the path of a JSON file as those have.")
    ],
    settings: SettingsOption = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="What was trained over CHECKPOINT: LoRA deltas (SAMed, PEFT), or the values of some layers."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called; as the variant else.")] = None,
    version: Annotated[str, typer.Option(help="The model's own version.")] = "1.0.0",
    algorithm_name: Annotated[
        str | None, typer.Option(help="What results call it (Algorithm Name); the variant's title else.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of one instance on the CPU; 0 for as many as there are cores.")] = 0,
    accelerator: Annotated[
        list[str] | None,
        typer.Option(help="openvino: judge the model with it too, and publish its configuration if it passes."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the model of that name.")] = False,
) -> None:
    """Export encoder and decoder of a promptable model to ONNX, compare both with torch, serve them, compare again,
    and publish what passes.

    Exit code 1 if anything speaks against it; nothing is published then.
    """
    from app.exporters.sam.importing import import_generalist
    from app.exporters.sam.planning import plan_generalist

    with _refusals_named():
        job = plan_generalist(
            checkpoint,
            variant,
            adapter=adapter,
            name=name,
            version=version,
            algorithm_name=algorithm_name,
            threads=threads,
        )
        package = import_generalist(
            load_settings(settings), job, replace=replace, accelerators=accelerator or (), progress=_progress
        )
    say(
        ("✓", "green"),
        f" {package.name} {package.version} is in {package.folder.parent}; weights {package.weights_digest[:12]}…",
    )
    say("  → fill in model_card.md and validate it")


@commands.command("list")
def list_command(settings: SettingsOption = None, as_json: JsonOption = False) -> None:
    """List the models of the repository. Exit code 1 if any can't be used."""
    from app.exporters import checking

    found = list(checking.list_models(load_settings(settings).model_repository))
    if as_json:
        print_json([_listed_as_json(one) for one in found])
    else:
        listed = table("model", "version", "networks", "kind", "problem")
        for one in found:
            package = one.package
            listed.add_row(
                one.name,
                "" if package is None else package.version,
                *_networks_and_kind(package),
                Text(one.problem),
            )
        console.print(listed)
    if any(one.problem for one in found):
        raise typer.Exit(1)


@commands.command("check")
def check_command(
    name: Annotated[str, typer.Argument(help="The model.")],
    settings: SettingsOption = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Also serve it by configs/ACCELERATOR.pbtxt and compare the answers with config.pbtxt's."),
    ] = None,
    elsewhere: Annotated[
        bool,
        typer.Option(
            "--elsewhere", help="Also compare what the Triton at triton.address answers: for GPUs and engines."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a model, see that its files are its manifest's, and, if asked, that it is computed alike by other means."""
    from app.exporters import checking

    loaded = load_settings(settings)
    with _refusals_named():
        package = checking.load_model(loaded.model_repository / name)
        figures: dict[str, checking.Figures] = {}
        if accelerator is not None:
            figures[accelerator] = checking.check_configuration(loaded, name, accelerator, _progress)
        if elsewhere:
            figures["elsewhere"] = checking.check_elsewhere(loaded, name, _progress)
    if as_json:
        print_json({**_described(package.name, package), "figures": figures})
        return
    say(("✓", "green"), f" {package.name} {package.version} is whole; weights {package.weights_digest[:12]}…")
    for how, models in figures.items():
        for model, classes in models.items():
            for one in classes:
                agreed = f"{one['agreement']:.6f} of the voxels agree, Dice {one['dice']:.6f}"
                say(f"  {how}: {model}, {one.get('name') or one['prompt']}: {agreed}")


@commands.command("build-engine")
def build_engine_command(
    name: Annotated[str, typer.Argument(help="The model.")],
    settings: SettingsOption = None,
    precision: Annotated[
        Literal["fp32", "fp16"], typer.Option(help="fp16 keeps InstanceNormalization in single precision.")
    ] = "fp16",
) -> None:
    """Build a TensorRT engine on this machine's GPU, for `tritonserver --model-config-name=tensorrt`.

    The graph in half precision is compared with the one in single precision first, on the CPU.
    """
    from app.exporters import checking

    with _refusals_named():
        checking.build_engine(load_settings(settings), name, precision, _progress)
    say(("✓", "green"), f" {name} has an engine")
    say("  → start Triton with --model-config-name=tensorrt, then: limner models check --elsewhere")


@contextmanager
def _refusals_named() -> Iterator[None]:
    """A refusal is one line and exit code 1."""
    try:
        yield
    except ImportRefused as error:
        say((error.code, "red"), f": {error}", to=errors)
        raise typer.Exit(1) from error


def _progress(line: str) -> None:
    say(f"… {line}", to=errors)


def _listed_as_json(listed: checking.Listed) -> dict[str, Any]:
    return {**_described(listed.name, listed.package), "problem": listed.problem}


def _networks_and_kind(package: ModelPackage | GeneralistPackage | None) -> tuple[str, str]:
    from operators.sam.package import GeneralistPackage

    if package is None:
        return "", ""
    if isinstance(package, GeneralistPackage):
        return ", ".join(package.parts), f"{package.contract.family}, {package.variant}"
    return ", ".join(network.configuration for network in package.all_networks), package.combination


def _described(name: str, package: ModelPackage | GeneralistPackage | None) -> dict[str, Any]:
    from operators.sam.package import GeneralistPackage

    if package is None:
        return {"name": name}
    described = {"name": name, "version": package.version, "weights_digest": package.weights_digest}
    if isinstance(package, GeneralistPackage):
        return {
            **described,
            "family": package.contract.family,
            "variant": package.variant,
            "networks": [{"model": part.model, "part": name} for name, part in package.parts.items()],
        }
    return {
        **described,
        "combination": package.combination,
        "networks": [
            {"model": network.name, "configuration": network.configuration} for network in package.all_networks
        ],
    }
