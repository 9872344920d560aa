"""OHIF as a peer: the viewer as it is published, served beside an Orthanc.

The package (npm: @ohif/app, MIT) holds the built viewer. It is pinned by its SHA-256, fetched by npm and unpacked once.
Only its configuration, `app-config.js`, is ours: that is the file in which a hospital names its archive.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import shutil
import subprocess
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.peers import Orthanc, program

PACKAGE = "@ohif/app@3.13.2"
ARCHIVE_SHA256 = "b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1"

_VIEWER = "package/dist/"
_LEFT_OUT = ("ort/", "dicom-microscopy-viewer/")
"""Two thirds of the package: a segmentation model of the viewer's own, and the viewer of slide images."""
_DICOMWEB = "/dicom-web"
_KEPT_HEADERS = ("Accept", "Content-Type")
_CONFIGURATION = {
    "routerBasename": "/",
    "showStudyList": True,
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "maxNumberOfWebWorkers": 1,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "the archive",
                "name": Orthanc.AE_TITLE,
                "qidoRoot": _DICOMWEB,
                "wadoRoot": _DICOMWEB,
                "wadoUriRoot": _DICOMWEB,
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "dicomUploadEnabled": False,
                "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}


def fetch(cache: Path) -> Path:
    """Return the folder with the built viewer, downloaded once into `cache` (50 MB, of which 45 MB are kept).

    npm must be installed: `peers.require("npm")` says so.
    """
    folder = cache / "ohif-3.13.2"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="ohif-") as scratch:
            unpacked = Path(scratch) / "viewer"
            _unpack(_download(Path(scratch)), unpacked)
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker, with the same bytes
                    raise
    return folder


def _download(scratch: Path) -> Path:
    command = [program("npm"), "pack", "--loglevel=error", "--no-update-notifier", PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=scratch)
    found = sorted(scratch.glob("*.tgz"))
    assert result.returncode == 0, f"npm could not fetch {PACKAGE}:\n{result.stdout}{result.stderr}"
    assert len(found) == 1, found
    with found[0].open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    assert digest == ARCHIVE_SHA256, f"{found[0].name} has SHA-256 {digest}, expected {ARCHIVE_SHA256}"
    return found[0]


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as package:
        for member in package:
            name = member.name.removeprefix(_VIEWER)
            wanted = member.name.startswith(_VIEWER) and not name.startswith(_LEFT_OUT) and not name.endswith(".map")
            stream = package.extractfile(member) if wanted and member.isfile() else None
            if stream is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(stream, file)


@contextmanager
def running_ohif(viewer: Path, orthanc: Orthanc) -> Iterator[str]:
    """The viewer in `viewer` at an address of this machine, and Orthanc's DICOMweb at the same; yields the address."""
    upstream = f"{orthanc.host}:{Orthanc.HTTP_PORT}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, viewer.resolve(), upstream))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20  # a connection that the browser keeps for later

    def __init__(self, viewer: Path, upstream: str, *arguments: object) -> None:
        self._viewer, self._upstream = viewer, upstream
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        super().__init__(*arguments)  # type: ignore[arg-type]  # which handles the connection

    def do_GET(self) -> None:  # noqa: N802 - the name is the library's
        path = self.path.partition("?")[0]
        if path.startswith(_DICOMWEB):
            self._pass_on()
        elif path == "/app-config.js":
            self._answer(HTTPStatus.OK, "text/javascript", f"window.config = {json.dumps(_CONFIGURATION)};".encode())
        else:
            file = (self._viewer / path.lstrip("/")).resolve()
            if not (file.is_file() and file.is_relative_to(self._viewer)):
                file = self._viewer / "index.html"  # the address of a view: the viewer itself reads it
            kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(file.suffix)
            self._answer(HTTPStatus.OK, kind or mimetypes.guess_type(file)[0] or "", file.read_bytes())

    def do_POST(self) -> None:  # noqa: N802 - the name is the library's
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        headers = {name: value for name in _KEPT_HEADERS if (value := self.headers.get(name))}
        url = f"http://{self._upstream}{self.path}"
        request = urllib.request.Request(url, data=body, method=self.command, headers=headers)
        try:
            with self._opener.open(request, timeout=60) as response:
                self._answer(response.status, response.headers.get("Content-Type", ""), response.read())
        except urllib.error.HTTPError as error:
            with error:
                self._answer(error.code, error.headers.get("Content-Type", ""), error.read())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type or "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        # what the viewer asks of whoever serves it: without them it has no shared memory
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: the browser's page says what failed."""
