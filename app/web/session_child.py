"""What runs in the process of one session: it reads the series, holds what is drawn, and answers the server.

The server sends one request at a time, JSON: ``{"ask": name, …}``. It is answered by JSON, never a pickle: any number
of ``["progress", done, most]``; then ``["done", facts, length]`` and, where the length is above 0, so many bytes of
packed masks; or what `app.jobs.child_isolation.failure_of` says of an error, after which the session goes on. While 3D
is under way, ``{"ask": "cancel"}`` ends it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import app.recording as recording  # first: it prepares what must be true before the SDK is imported
from app.graph import LABELS_FILE, RECORD_FILE, CompletionRecord, FindingRecord, LabelsRecord, ModelRecord
from app.jobs.child_isolation import die_with_server, failure_of, isolate
from app.web.drawing import Drawing, Found
from app.web.placement import placed_prompt
from app.web.task import SessionTask
from operators.durable import write_durably
from operators.errors import InferenceFailed
from operators.gate.gate import Gate
from operators.results.finding import Algorithm, Finding
from operators.results.writing import write_results
from operators.sam.embeddings import EmbeddingCache
from operators.sam.network import ServedNetworks, open_networks, served_predictor
from operators.sam.package import GeneralistPackage
from operators.sam.predictor import Tensors
from operators.sam.showing import shown_series
from operators.sam.windowing import window_text
from operators.segments import Code, SegmentSpec
from operators.series_volume import SeriesVolume, read_series

_LABEL = 1
_GATE = Gate(takes_single_slice=True)


def run_session(connection: Connection, lifeline: Connection, task: SessionTask, memory_limit_bytes: int) -> None:
    """Answer requests until the server closes the connection or kills this process."""
    isolate(memory_limit_bytes)
    die_with_server(lifeline)
    networks = Networks(task)
    try:
        session = Session(task, networks, connection)
        _answer(connection, lambda: Found({}, session.described()))
        while True:
            request = json.loads(connection.recv_bytes())
            if request["ask"] != "cancel":  # of what has ended by itself
                _answer(connection, lambda request=request: session.follow(request))  # type: ignore[misc]
    except EOFError:
        pass
    except Exception as error:  # noqa: BLE001 - the process's border: why it can't begin must reach the server
        _send(connection, failure_of(error))
    os._exit(0)  # gRPC's end of process is not waited for


class Networks:
    """A generalist's networks at Triton, connected when they are asked, and anew after a failure."""

    def __init__(self, task: SessionTask) -> None:
        self._task = task
        self._open = ExitStack()
        self._networks: ServedNetworks | None = None

    def encode(self, image: Any) -> Tensors:
        """Ask the encoder."""
        return self._asked(lambda networks: networks.encode(image))

    def decode(self, request: Tensors) -> Tensors:
        """Ask the decoder."""
        return self._asked(lambda networks: networks.decode(request))

    def infer(self, part: str, inputs: Tensors) -> Tensors:
        """Ask any part."""
        return self._asked(lambda networks: networks.infer(part, inputs))

    def _asked(self, ask: Callable[[ServedNetworks], Tensors]) -> Tensors:
        try:
            if self._networks is None:
                self._networks = self._open.enter_context(
                    open_networks(
                        self._task.package,
                        self._task.triton_target,
                        deadline_seconds=self._task.request_seconds,
                        shared_memory=self._task.shared_memory,
                    )
                )
            return ask(self._networks)
        except InferenceFailed:
            self._networks = None  # Triton may be another one by the next request
            self._open.close()
            raise


class Session:
    """One series, and what is drawn on it."""

    def __init__(self, task: SessionTask, networks: Networks, connection: Connection) -> None:
        self._package: GeneralistPackage = task.package
        self._connection = connection
        self._series: SeriesVolume = read_series(task.files, gate=_GATE)
        self._asked_window = window_text(task.window)
        shown, self._window = shown_series(self._series, task.window)
        cache = EmbeddingCache(task.embeddings_folder, most_bytes=task.embedding_bytes)
        self._drawing = Drawing(self._series, shown, served_predictor(task.package, networks, cache))

    def described(self) -> dict[str, Any]:
        """Return where the series lies, and how it is shown."""
        volume = self._series.volume
        slices, rows, columns = volume.spatial_shape
        return {
            "geometry": {
                "slices": int(slices),
                "rows": int(rows),
                "columns": int(columns),
                "affine": volume.affine.tolist(),
                "frame_of_reference_uid": str(volume.frame_of_reference_uid),
                "sop_instance_uids": [str(header.SOPInstanceUID) for header in self._series.datasets],
                "frame_numbers": list(self._series.frame_numbers),
            },
            "window": {
                "centre": self._window.centre,
                "width": self._window.width,
                "source": self._window.source,
            },
        }

    def follow(self, request: Mapping[str, Any]) -> Found:
        """Do what a request asks."""
        drawing = self._drawing
        match request["ask"]:
            case "prompt":
                index, prompt = placed_prompt(request["prompt"], self._series)
                flags = {name: bool(request["prompt"][name]) for name in ("refine", "several")}
                return drawing.prompt(index, prompt, **flags)
            case "choose":
                return drawing.choose(int(request["number"]))
            case "propagate":
                return drawing.propagate(_reach(request), self._progress, self._is_cancelled)
            case "undo":
                return drawing.undo()
            case "clear":
                return drawing.clear()
            case "mask":
                return drawing.mask(request["slice"])
            case "digest":
                return Found({}, {"digest": drawing.digest()})
            case "write":
                self._write(request)
                return Found({})
        raise ValueError("an unknown request")

    def _progress(self, done: int, most: int) -> None:
        _send(self._connection, ["progress", done, most])

    def _is_cancelled(self) -> bool:
        # while one request is under way, nothing else is sent
        if not self._connection.poll(0):
            return False
        self._connection.recv_bytes()
        return True

    def _write(self, request: Mapping[str, Any]) -> None:
        """Write the objects, the label map and, last, the record of both, as a graph does."""
        folder, package = Path(request["folder"]), self._package
        segment = _segment(request["segment"])
        labels = self._drawing.labels()
        kinds = " + ".join(self._drawing.kinds())  # Algorithm Parameters are separated by commas
        asked = {"window": self._asked_window or "by modality", "prompts": kinds}
        found = Finding(
            labels=labels,
            series=self._series,
            segments=[segment],
            algorithm=Algorithm(package.algorithm_name, package.version, package.weights_digest, asked),
            identity=request["identity"],
            series_description=request["series_description"],
            is_automatic=False,
        )
        written = write_results(found, request["kinds"], folder)
        finding = FindingRecord(
            role="specialist",  # the only model of its job, prompted by a person and by no other model
            objects=recording.object_records(written),
            labels=LabelsRecord(LABELS_FILE, recording.write_labels(folder / LABELS_FILE, labels)),
            segments=recording.segment_records(labels, [segment]),
            model=ModelRecord(package.name, package.version, package.weights_digest),
        )
        series = self._series
        record = CompletionRecord(request["identity"], (finding,), notes=series.notes, dropped=series.dropped)
        write_durably(folder / RECORD_FILE, record.to_json())


def _reach(request: Mapping[str, Any]) -> tuple[int | None, int | None] | None:
    first, last = request["first"], request["last"]
    return None if first is None and last is None else (first, last)


def _segment(said: Mapping[str, Any]) -> SegmentSpec:
    def code(key: str) -> Code:
        return Code(said[key]["value"], said[key]["scheme"], said[key]["meaning"])

    return SegmentSpec(
        label_value=_LABEL,
        label=said["label"],
        category=code("category"),
        type=code("type"),
        modifier=None if said["modifier"] is None else code("modifier"),
        algorithm_name="",
        rgb=None,
    )


def _answer(connection: Connection, follow: Callable[[], Found]) -> None:
    try:
        found = follow()
    except Exception as error:  # noqa: BLE001 - the process's border: what it is must reach the server
        _send(connection, failure_of(error))
        return
    content = b"".join(found.slices.values())
    _send(connection, ["done", dict(found.facts), len(content)])
    if content:
        connection.send_bytes(content)


def _send(connection: Connection, message: list[Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())
