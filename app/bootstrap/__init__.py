"""The one place where the server's parts are made and joined: what is loaded, what it stands on, and how it serves.

Here are the parts alone. `loading` and `serving` bring in what computes, seconds of imports that a command which only
asks the records need not wait for: who loads or serves names them.
"""

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

__all__ = [
    "RunningServer",
    "embedded_triton",
    "make_destination",
    "make_destinations",
    "make_result_files",
    "make_spool",
    "make_store",
    "open_records",
    "running_server",
]
