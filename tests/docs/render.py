"""Writes the pages that are made from code: `python -m tests.docs.render`. Tests hold the pages to the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydicom.uid import UID
from typer.main import get_command

from app import cli, settings
from app.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from app.listener.presentation import (
    NEWER_STORAGE_SOP_CLASSES,
    REFUSED_TRANSFER_SYNTAXES,
    RETIRED_STORAGE_SOP_CLASSES,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
)
from app.settings_gate import GateSettings
from app.settings_listener import ListenerSettings, SourceSettings
from app.settings_listener_tls import ListenerTlsSettings
from app.settings_peer_tls import PeerTlsSettings
from app.settings_pipeline import GeneralistSettings, PipelineSettings, RuleSettings
from app.settings_prompt import PromptSettings
from app.settings_retention import RetentionSettings
from app.settings_routing import RoutingSettings
from app.settings_shared_storage import SharedStorageSettings
from app.settings_slots import SlotsSettings
from app.settings_web import WebSettings
from app.settings_worker import WorkerSettings
from app.web import api
from operators.gate.policies import CHECKS
from operators.pixel_decoders import DECODERS

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS_PAGE = REPOSITORY / "docs/reference/settings.md"
COMMAND_LINE_PAGE = REPOSITORY / "docs/reference/command-line.md"
API_PAGE = REPOSITORY / "docs/reference/api.md"
CONFORMANCE_PAGE = REPOSITORY / "docs/reference/conformance.md"
INPUT_CHECKS_PAGE = REPOSITORY / "docs/reference/input-checks.md"
_CHECKS_HEADING = "## The checks that a pipeline can choose for\n"

_CONFORMANCE_HEAD = """# DICOM conformance

What Limner offers and asks for, in the order of PS3.2. *Made from `app/listener/presentation.py` by
`python -m tests.docs.render`; a test keeps it true.*

| | |
|---|---|
| Implementation Class UID | `{class_uid}` |
| Implementation Version Name | `{version}` |
| Services as SCP | Verification, Storage |
| Services as SCU | Verification (`limner check`), Storage (results, `limner submit`), \
Study Root FIND and MOVE (`[[archive]]`), Study Root FIND (whether a destination holds a result), \
Storage Commitment Push Model (`[[destination]] commitment`) |
| Maximum PDU, associations, time-outs | the `[listener]` settings |
| Character sets | the source's Specific Character Set is kept, its values unchanged |
| Security | called and calling AE title and host are checked; TLS 1.2 or later for what comes (`[listener.tls]`), \
for destinations and archives (`[destination.tls]`, `[archive.tls]`) and for DICOMweb |

As SCU, an association proposes exactly the SOP class and transfer syntax of what it sends: results are Segmentation
Storage in Explicit VR Little Endian. Results are withdrawn by Key Object Selection Documents, the rejection notes of
IHE's Imaging Object Change Management (Change Requester, without the query of what was rejected).

As a DICOMweb user agent (PS3.18), it stores results by STOW-RS (`POST /studies`, multipart/related with one
application/dicom part, answers in application/dicom+json) and asks by QIDO-RS (`GET /studies`, `…/{{study}}/series`,
`…/{{study}}/series/{{series}}/instances`, page by page), over TLS 1.2 or newer, with HTTP Basic, a bearer token or a
certificate of its own. As SCP, Success (0x0000) means that the instance is on disk, synced and recorded;
[refusals](refusals.md) has the other statuses. Limner is no archive: it offers neither Storage Commitment nor
Query/Retrieve. Where a destination is to commit itself, the listener accepts Storage Commitment Push Model in the SCU
role (the requestor proposes itself as SCP) and answers its N-EVENT-REPORT with 0x0000 once it is kept, 0x0124 to a
stranger, 0x0115 where nothing was asked under that Transaction UID, 0x0110 where it can't be kept now. An association
is for reports or for storage: of such a destination that proposes both, only Storage Commitment Push Model and
Verification are accepted, of anybody else only Storage and Verification. A report is 128 KiB at most, on
700 objects, and the next one is read when it is answered. """

_PIXELS = """An instance is kept in each of them. Whether its pixels can then be read for a model is in the last column;
[inputs](inputs.md#transfer-syntaxes) says by which library. A series in another is refused as
`transfer-syntax-unsupported`."""

_SETTINGS_HEAD = """# Settings

One TOML file, given with `--settings`. An environment variable overrides a key: `LIMNER__LISTENER__PORT=104`. Unknown
keys are errors. Times are seconds, sizes are bytes. Relative folders count from the file's own folder.

*This page is made from `app/settings*.py` by `python -m tests.docs.render`; a test keeps it true.*
"""

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("the top of the file", settings.Settings),
    ("[listener]", ListenerSettings),
    ("[[listener.source]]", SourceSettings),
    ("[listener.tls]", ListenerTlsSettings),
    ("[routing]", RoutingSettings),
    ("[[pipeline]]", PipelineSettings),
    ("[pipeline.generalist]", GeneralistSettings),
    ("[pipeline.prompt]", PromptSettings),
    ("[pipeline.gate]", GateSettings),
    ("[[rule]]", RuleSettings),
    ("[[destination]]", settings.DestinationSettings),
    ("[[archive]]", settings.ArchiveSettings),
    ("[destination.tls], [archive.tls]", PeerTlsSettings),
    ("[[slots]]", SlotsSettings),
    ("[triton]", settings.TritonSettings),
    ("[models]", settings.ModelsSettings),
    ("[web]", WebSettings),
    ("[worker]", WorkerSettings),
    ("[retention]", RetentionSettings),
    ("[database]", settings.DatabaseSettings),
    ("[shared_storage]", SharedStorageSettings),
    ("[logging]", settings.LoggingSettings),
)


def settings_page() -> str:
    """Return the settings page's text."""
    parts = [_SETTINGS_HEAD]
    for heading, section in _SECTIONS:
        code = heading.startswith("[")
        parts.append(f"## {f'`{heading}`' if code else heading[0].upper() + heading[1:]}\n")
        if code and section.__doc__:
            parts.append(_unindented(section.__doc__) + "\n")
        parts.append("| key | default | meaning |\n|---|---|---|")
        parts.extend(
            f"| `{name}` | {_default(field)} | {field.description} |"
            for name, field in section.model_fields.items()
            if not _is_table(field)
        )
        parts.append("")
    return "\n".join(parts)


def _is_table(field: FieldInfo) -> bool:
    """Whether a key holds a table or several: those have sections of their own."""
    kinds = (field.annotation, *get_args(field.annotation))
    return any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def _unindented(text: str) -> str:
    lines = text.strip().splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Path):
        if value.is_absolute():
            value = value.relative_to(REPOSITORY)
        return f"`{value}`"
    if value is None or value in ((), {}, ""):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def command_line_page() -> str:
    """Return the command line page's text: the help of each command."""
    parts = ["# Command line\n\n*Made from `limner --help` by `python -m tests.docs.render`; a test keeps it true.*\n"]
    command = get_command(cli.app)
    parts.extend(_helps(command, "limner"))
    return "\n".join(parts)


def _helps(command: Any, path: str) -> list[str]:
    parts = [f"## `{path}`\n\n{command.help}\n"]
    rows = [_parameter_row(one) for one in command.params if one.name != "help"]
    if rows:
        parts.append("| parameter | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    for name, child in sorted(getattr(command, "commands", {}).items()):
        parts.extend(_helps(child, f"{path} {name}"))
    return parts


def _parameter_row(parameter: Any) -> str:
    names = ", ".join(parameter.opts) if parameter.opts[0].startswith("-") else parameter.name.upper()
    return f"| `{names}` | {parameter.help} |"


_API_HEAD = """# The API for viewers

An HTTP API through which a viewer has a generalist of SAM's family draw on a series, prompt by prompt. Every request
but `GET /openapi.json` shows the token of the settings: `Authorization: Bearer TOKEN`. Requests and answers are JSON;
what goes wrong is application/problem+json with a [code](refusals.md#a-request-to-the-api). `/openapi.json` describes
every message, with examples; [prompt a generalist interactively](../how-to/interactive.md) shows a session.

*Made from `app/web` by `python -m tests.docs.render`; a test keeps it true.*

- Pixels: x is the column, y the row; the middle of the first pixel is at (0.5, 0.5).
- Patient coordinates: x, y, z in mm, LPS, in the frame of reference that the prompt names.
- Slices are numbered from 0 along the volume's first axis; `geometry` maps them to instances and to the patient.
- Run lengths count pixels row by row from the upper left corner, first those outside, then those inside, and so on.
- A prompt holds all that is shown on its slice. `refine` shows the model its last answer there as well.
- A session draws one structure; `DELETE …/mask` begins the next. It follows one request at a time, and ends idle.

| request | what it does |
|---|---|
"""


def api_page() -> str:
    """Return the API page's text: its paths and messages."""
    content = api.build(api.Api(settings.Settings(), *[None] * 3)).openapi()  # type: ignore[arg-type]
    paths = [
        f"| `{method.upper()} {path}` | {operation['summary']} |"
        for path, methods in content["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [_API_HEAD + "\n".join(paths)]
    for name, schema in sorted(content["components"]["schemas"].items()):
        parts.append(f"\n## `{name}`\n\n{schema['description']}\n\n| member | meaning |\n|---|---|")
        needed = schema.get("required", [])
        parts += [
            f"| `{key}`{'' if key in needed else ' (optional)'} | {value.get('description', '')} |"
            for key, value in schema["properties"].items()
        ]
    return "\n".join(parts) + "\n"


def conformance_page() -> str:
    """Return the conformance page's text: the tables of what the listener accepts."""
    head = _CONFORMANCE_HEAD.format(class_uid=IMPLEMENTATION_CLASS_UID, version=IMPLEMENTATION_VERSION_NAME)
    accepted = "\n".join(
        f"| {name} | `{uid}` | {'yes' if UID(uid) in DECODERS else 'no'} |" for uid, name in TRANSFER_SYNTAXES.items()
    )
    refused = "\n".join(f"| {UID(uid).name} | `{uid}` | {why} |" for uid, why in REFUSED_TRANSFER_SYNTAXES.items())
    classes = "\n".join(f"| {_class_name(uid)} | `{uid}` |" for uid in STORAGE_SOP_CLASSES)
    return (
        f"{head}\n## Transfer syntaxes accepted, the preferred first\n\n{_PIXELS}\n"
        f"\n| name | UID | pixels read |\n|---|---|---|\n{accepted}\n"
        f"\n## Transfer syntaxes refused on purpose\n\n| name | UID | why |\n|---|---|---|\n{refused}\n"
        f"\n## Storage SOP classes accepted\n\n| name | UID |\n|---|---|\n{classes}\n"
    )


_KEYWORDS = {str(uid): keyword for uid, keyword in {**NEWER_STORAGE_SOP_CLASSES, **RETIRED_STORAGE_SOP_CLASSES}.items()}


def _class_name(uid: str) -> str:
    name = UID(uid).name
    if name != uid:
        return name
    return _KEYWORDS[uid]  # newer than pydicom's dictionary, or dropped from it


def input_checks_page() -> str:
    """Return the input checks page's text: what is written by hand, and the tables of the checks."""
    head, _, _ = INPUT_CHECKS_PAGE.read_text().partition(_CHECKS_HEADING)
    free = [one for one in CHECKS.values() if len(one.allowed) > 1 or one.repair]
    fixed = [one for one in CHECKS.values() if one not in free]
    parts = [
        head + _CHECKS_HEADING,
        "| code | what is found | by default | can be | the repair |\n|---|---|---|---|---|",
    ]
    parts += [
        f"| `{one.code}` | {one.finding} | {one.default} | {', '.join(one.allowed)} | {one.repair} |" for one in free
    ]
    parts += ["\n## The checks that always refuse\n", "| code | what is found |\n|---|---|"]
    parts += [f"| `{one.code}` | {one.finding} |" for one in fixed]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the pages."""
    INPUT_CHECKS_PAGE.write_text(input_checks_page())
    SETTINGS_PAGE.write_text(settings_page())
    COMMAND_LINE_PAGE.write_text(command_line_page())
    CONFORMANCE_PAGE.write_text(conformance_page())
    API_PAGE.write_text(api_page())


if __name__ == "__main__":
    typer.run(main)
