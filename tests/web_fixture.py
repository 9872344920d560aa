"""What tests of the API share: a client, a generalist that Triton serves, and a series with a ball in it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from operators.model_folder import file_digest, weights_files
from operators.triton import PROBE_MODEL
from tests.phantom import Phantom
from tests.sam_fixture import contract_content
from tests.triton_fixture import MODEL_REPOSITORY, REPOSITORY_ROOT

TOKEN = "0123456789abcdef" * 4
MODEL = "limner_sam"
_NETWORKS = (("encoder", "limner_sam"), ("decoder", "limner_sam_box_decoder"))
BALL = Phantom(slices=12, rows=48, columns=64, row_spacing=1.5, column_spacing=1.5, slice_spacing=3.0)
CENTRE = (5.5, 24.0, 32.0)
"""Of the ball: slice, row, column, as indices of voxels' middles."""
_RADIUS_MM = 15.0
INSIDE, OUTSIDE = 200, -100
"""HU: 0.9 and 0.15 of the soft tissue window."""


@dataclass
class Reply:
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks the API at a port of this machine."""

    port: int
    token: str | None = TOKEN
    seconds: float = 60.0
    headers: dict[str, str] = field(default_factory=dict)

    def request(
        self, method: str, path: str, content: Any = None, *, raw: bytes | None = None, **headers: Any
    ) -> Reply:
        """Send `content` as JSON, or `raw` as it is."""
        body = raw if content is None else json.dumps(content).encode()
        said = {"Content-Type": "application/json"} if body is not None else {}
        if self.token is not None:
            said["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.seconds)
        try:
            connection.request(method, path, body, {**said, **self.headers, **headers})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, content: Any = None, status: int = 200) -> Any:
        """The JSON of an answer that must have `status`."""
        reply = self.request(method, path, content)
        assert reply.status == status, (reply.status, reply.body)
        return reply.json if reply.body else None

    def refused(self, method: str, path: str, content: Any = None, **more: Any) -> tuple[int, str]:
        """Status and code of an answer that must be a problem, whole and told as one."""
        reply = self.request(method, path, content, **more)
        assert reply.headers["content-type"] == "application/problem+json", reply
        problem = reply.json
        assert problem["status"] == reply.status
        assert problem["detail"]
        return reply.status, problem["code"]


def generalist_repository(folder: Path) -> Path:
    """Fill `folder` with a generalist that finds what is bright within boxes and around points."""
    (folder / PROBE_MODEL).symlink_to(MODEL_REPOSITORY / PROBE_MODEL)
    networks = {}
    for part, model in _NETWORKS:
        (folder / model).mkdir()
        for name in ("config.pbtxt", "1"):
            (folder / model / name).symlink_to(REPOSITORY_ROOT / "tests" / "fixtures" / "sam" / model / name)
        networks[part] = {"model": model, "weights_sha256": file_digest(*weights_files(folder / model / "1"))}
    manifest = {"format": 1, "family": "sam", "variant": "toy", "contract": contract_content(), "networks": networks}
    (folder / MODEL / "manifest.json").write_text(json.dumps(manifest))
    (folder / MODEL / "model_card.md").write_text("---\nversion: 1.0.0\nalgorithm_name: Toy\n---\n")
    return folder


def write_ball(folder: Path, seed: int = 0) -> list[Path]:
    """Write the series; its slices are in the order of the session's."""
    phantom = Phantom(**{**BALL.__dict__, "seed": seed})

    def edit(index: int, dataset: pydicom.Dataset) -> pydicom.Dataset:
        stored = np.where(ball_mask(index), INSIDE, OUTSIDE) + 1024
        dataset.PixelData = stored.astype(np.int16).tobytes()
        return dataset

    return phantom.write(folder, edit=edit)


def ball_mask(index: int) -> NDArray[np.bool_]:
    """The ball on a slice, (rows, columns)."""
    rows, columns = np.arange(BALL.rows)[:, None], np.arange(BALL.columns)[None, :]
    place = (
        ((index - CENTRE[0]) * BALL.slice_spacing) ** 2
        + ((rows - CENTRE[1]) * BALL.row_spacing) ** 2
        + ((columns - CENTRE[2]) * BALL.column_spacing) ** 2
    )
    inside: NDArray[np.bool_] = place <= _RADIUS_MM**2
    return inside


def from_runs(runs: list[int], rows: int = BALL.rows, columns: int = BALL.columns) -> NDArray[np.bool_]:
    """A mask from its run lengths, as the documentation says they are read."""
    flat = np.concatenate([np.full(length, number % 2 == 1) for number, length in enumerate(runs)])
    return flat.reshape(rows, columns)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Their Dice coefficient."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
