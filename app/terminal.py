"""What the commands print with: lines, tables and JSON; and the options that most of them have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

console = Console()
errors = Console(stderr=True)

SettingsOption = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="The TOML settings file; without it, defaults and LIMNER__… variables."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def say(*parts: str | tuple[str, str], to: Console = console) -> None:
    """Print a line as it is: brackets are no markup, and a long line is not folded. A part may bring its style."""
    to.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def table(*headings: str) -> Table:
    """Return a table that folds what is too long for its column: half of an identifier is of no use."""
    return Table(*(Column(heading, overflow="fold") for heading in headings))


def print_json(value: Any) -> None:
    """Print `value` for scripts."""
    print(json.dumps(value, indent=2))
