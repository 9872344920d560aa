"""The one place where the server's parts are made and joined: what is loaded, what it stands on, and how it serves."""

from app.bootstrap.loading import load_generalists, load_packages, load_prompted, load_web
from app.bootstrap.parts import (
    RunningServer,
    embedded_triton,
    make_destination,
    make_destinations,
    make_result_files,
    make_spool,
    make_store,
    open_records,
    running_server,
)
from app.bootstrap.serving import serve

__all__ = [
    "RunningServer",
    "embedded_triton",
    "load_generalists",
    "load_packages",
    "load_prompted",
    "load_web",
    "make_destination",
    "make_destinations",
    "make_result_files",
    "make_spool",
    "make_store",
    "open_records",
    "running_server",
    "serve",
]
