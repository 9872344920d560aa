"""The files that every model's folder has, read so that whatever is wrong with them says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from operators.errors import ModelPackageError

CARD_FILE = "model_card.md"
_FRONT_MATTER_FENCE = "---"
_READ_BYTES = 1 << 20


def present(folder: Path, name: str) -> Path:
    """Return the path of the file `name` in `folder`; ``file-missing`` if it is not there."""
    path = folder / name
    if not path.is_file():
        raise ModelPackageError(f"model {folder.name} lacks {name}", code="file-missing")
    return path


def newest_version(folder: Path) -> str:
    """Return the highest numbered folder that holds weights: Triton's default version policy serves the latest one."""
    versions = [int(path.parent.name) for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
    if not versions:
        raise ModelPackageError(f"model {folder.name} lacks 1/model.onnx", code="file-missing")
    return str(max(versions))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; ``file-unreadable`` if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelPackageError(f"{_short(path)} can't be read as JSON: {error}", code="file-unreadable") from error
    if not isinstance(content, dict):
        raise ModelPackageError(f"{_short(path)} must hold a JSON object", code="file-unreadable")
    return content


def read_card(folder: Path) -> dict[str, Any]:
    """Return the front matter of the card in `folder`: the YAML between the ``---`` lines with which it starts."""
    path = present(folder, CARD_FILE)
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if first != _FRONT_MATTER_FENCE or _FRONT_MATTER_FENCE not in lines:
        raise ModelPackageError(f"{_short(path)} must start with YAML between two --- lines", code="file-unreadable")
    try:
        card = yaml.safe_load("\n".join(lines[: lines.index(_FRONT_MATTER_FENCE)]))
    except yaml.YAMLError as error:
        raise ModelPackageError(
            f"{_short(path)}: the front matter is no YAML: {error}", code="file-unreadable"
        ) from error
    if not isinstance(card, dict):
        raise ModelPackageError(f"{_short(path)}: the front matter must be a mapping", code="file-unreadable")
    return card


def card_text(card: Mapping[str, Any], key: str, model: str) -> str:
    """Return a text that every card must have; ``file-unreadable`` if that of `model` lacks it."""
    value = card.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ModelPackageError(
            f"the model card of {model} must name its {key} as text (quote it if it looks like a number)",
            code="file-unreadable",
        )
    return value.strip()


def file_digest(*paths: Path) -> str:
    """Return the SHA-256 of a file, or of several as if they were one; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


def weights_files(folder: Path) -> list[Path]:
    """Return the files of one version's weights: large graphs keep theirs beside them, since protobuf ends at 2 GiB."""
    return [path for path in (folder / "model.onnx", folder / "model.onnx.data") if path.is_file()]


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
