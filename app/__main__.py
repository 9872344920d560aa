"""``python -m app -i DIR -o DIR``: the graph on one folder, as every MONAI Deploy application runs; what a MAP runs.

For a model with several input channels: ``--channel NAME=DIR``, once a channel, in place of ``-i``. With
``--generalist NAME`` a model of the SAM family segments once more what the first one found, and the two are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from pydicom.misc import is_dicom

from app.app import SegmentationApp
from app.errors import LimnerError, SettingsError, VerificationFailed
from app.graph import (
    RECORD_FILE,
    SPECIALIST_RECORD_FILE,
    ChannelInput,
    CompletionRecord,
    GeneralistRequest,
    GraphRequest,
    specialist_alone,
)
from app.identifiers import derive_uuid
from app.jobs.verification import VerifiedObject, verify_results
from app.serving.triton import EmbeddedTriton
from app.settings import Settings
from operators.durable import write_durably
from operators.errors import OperatorError
from operators.model_folder import read_card
from operators.model_package import ModelPackage
from operators.sam.guided import BOX_MARGIN_PIXELS
from operators.sam.package import GENERALIST_KIND
from operators.sam.prompts import SegmentPrompts
from operators.sam.windowing import asked_window
from operators.sdk import RuntimeEnv
from operators.triton import PROBE_MODEL

_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the graph on a folder; return 0 only if its record is there and its objects were read back and verified."""
    options = _parse(arguments)
    try:
        package = ModelPackage.load(_model_folder(options.model_repository, options.model))
        inputs, generalist = _inputs(options, package), _generalist(options)
        options.output.mkdir(parents=True, exist_ok=True)
        for name in (RECORD_FILE, SPECIALIST_RECORD_FILE):
            (options.output / name).unlink(missing_ok=True)
        with _triton_target(options.triton, options.model_repository) as target:
            _run(_request(options.output, inputs, package, target, generalist))
        record, objects = _verified(options.output, inputs[0].files)
    except (OperatorError, LimnerError) as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return _FAILED
    for note in record.notes:
        print(f"{note.code} ({note.policy}): {note.message}", file=sys.stderr)
    for one in objects:
        print(one.path)
    for finding in record.findings:
        for segment in finding.segments:
            said = "" if finding.role == "specialist" else f", by {finding.model.name}"
            print(f"{segment.label}: {segment.volume_ml:.1f} ml{said}")
    for compared in record.agreement:
        distance = "no distance" if compared.distance_mm is None else f"{compared.distance_mm:.1f} mm"
        print(f"{compared.label}: Dice {compared.dice:.3f}, {distance} between the two models")
    if record.generalist_failure is None:
        return 0
    print(f"generalist-failed: {record.generalist_failure.code}: {record.generalist_failure.reason}", file=sys.stderr)
    return _FAILED


def _run(request: GraphRequest) -> None:
    """Run the graph; where it fails after the specialist has a result, that is the result."""
    try:
        SegmentationApp(request, _show).run()
    except OperatorError as error:
        record = specialist_alone(request.output_folder, error.code, str(error))
        if record is None:
            raise
        write_durably(request.output_folder / RECORD_FILE, record.to_json())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    environment = RuntimeEnv()  # the SDK's variables: HOLOSCAN_INPUT_PATH and its like, TRITON_SERVER_NETLOC
    settings = Settings()
    model_repository = environment.model if Path(environment.model).is_dir() else settings.model_repository
    parser = argparse.ArgumentParser(prog="python -m app", description="Segment the series in a folder.")
    parser.add_argument("-i", "--input", type=Path, default=Path(environment.input), help="folder with one series")
    parser.add_argument(
        "-c",
        "--channel",
        type=_channel_folder,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder with the series of one input channel; once for each, for a model with several",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(environment.output), help="folder for the results")
    parser.add_argument(
        "-m", "--model-repository", type=Path, default=Path(model_repository), help="folder with the models"
    )
    parser.add_argument("--model", default=None, help="which of them, if there is more than one")
    parser.add_argument(
        "-t",
        "--triton",
        default=environment.triton_server_netloc or None,
        help="gRPC address of a Triton that serves them; one is started if not given",
    )
    parser.add_argument(
        "-g", "--generalist", default=None, metavar="NAME", help="a generalist that its result prompts, to compare both"
    )
    parser.add_argument(
        "--window",
        default="",
        help="what the generalist is shown: a name, centre/width as in 40/400, or percentiles; by default soft tissue "
        "for CT and percentiles for all others",
    )
    parser.add_argument(
        "--prompts",
        choices=get_args(SegmentPrompts),
        default="boxes",
        help="what the generalist is shown of each segment on a slice; by default the box around it",
    )
    options = parser.parse_args(arguments)
    folders = [folder for _, folder in options.channel] or [options.input]
    for folder in folders:
        if not folder.is_dir():
            parser.error(f"there is no input folder {folder}")
    return options


def _channel_folder(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=FOLDER, as in T1=/data/t1")
    return name, Path(folder)


def _inputs(options: argparse.Namespace, package: ModelPackage) -> tuple[ChannelInput, ...]:
    """The files of each channel, in the model's order; SettingsError if the channels named are not the model's."""
    folders: list[tuple[str, Path]] = options.channel
    channels = package.channel_names
    if not folders and len(channels) == 1:
        return (ChannelInput("", _dicom_files(options.input)),)
    if sorted(name for name, _ in folders) != sorted(channels):
        named = ", ".join(name for name, _ in folders) or "none"
        raise SettingsError(
            f"the model {package.name} has the input channels {', '.join(channels)}, and --channel names {named}; "
            "give --channel NAME=FOLDER once for each"
        )
    return tuple(ChannelInput(name, _dicom_files(dict(folders)[name])) for name in channels)


def _generalist(options: argparse.Namespace) -> GeneralistRequest | None:
    if options.generalist is None:
        return None
    asked_window(options.window)  # so that it is refused before the specialist begins
    return GeneralistRequest(
        options.model_repository / options.generalist, options.window, BOX_MARGIN_PIXELS, prompts=options.prompts
    )


def _dicom_files(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(folder.rglob("*")) if path.is_file() and is_dicom(path))


def _model_folder(repository: Path, name: str | None) -> Path:
    if name is not None:
        return repository / name
    folders = [path.parent for path in sorted(repository.glob("*/model_card.md")) if path.parent.name != PROBE_MODEL]
    models = [folder for folder in folders if read_card(folder).get("kind") != GENERALIST_KIND]
    if len(models) != 1:
        names = ", ".join(path.name for path in models) or "none"
        raise LimnerError(f"expected one model in {repository}, found {names}; name one with --model", code="model")
    return models[0]


@contextlib.contextmanager
def _triton_target(address: str | None, repository: Path) -> Iterator[str]:
    if address is not None:
        yield address
        return
    triton = Settings().triton
    with tempfile.TemporaryDirectory(prefix="limner-") as folder:
        embedded = EmbeddedTriton(
            triton.python,
            repository,
            Path(folder),
            start_seconds=triton.start_seconds,
            probe_seconds=triton.probe_seconds,
            model_configuration=triton.model_configuration,
        )
        with embedded:
            yield embedded.target


def _request(
    output: Path,
    inputs: tuple[ChannelInput, ...],
    package: ModelPackage,
    target: str,
    generalist: GeneralistRequest | None,
) -> GraphRequest:
    triton = Settings().triton
    digests = sorted(
        f"{one.channel}{hashlib.sha256(path.read_bytes()).hexdigest()}" for one in inputs for path in one.files
    )
    identity = derive_uuid("folder", package.name, package.version, package.weights_digest, *digests)
    return GraphRequest(
        inputs=inputs,
        output_folder=output,
        model_folder=package.folder,
        triton_target=target,
        identity=str(identity),
        series_description="",
        request_seconds=triton.request_seconds,
        shared_memory=triton.shared_memory,
        generalist=generalist,
    )


def _verified(output: Path, files: Sequence[Path]) -> tuple[CompletionRecord, tuple[VerifiedObject, ...]]:
    path = output / RECORD_FILE
    try:
        record = CompletionRecord.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise VerificationFailed(f"the graph left no completion record {path}", code="graph-no-record") from error
    return record, verify_results(record, output, files)


def _show(step: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{step} {done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
