"""A real PostgreSQL for tests: one server a session, one fresh database a test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from app.serving.postgres import EmbeddedPostgres

_numbers = itertools.count(1)


@contextmanager
def running_postgres() -> Iterator[str]:
    """Give the URL of an embedded PostgreSQL that ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="limner-test-"))
    try:
        with EmbeddedPostgres(folder / "database", folder / "run") as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Give the URL of an empty database of its own on the server."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server_url.replace("/postgres?", f"/{name}?")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
