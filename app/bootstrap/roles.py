"""What one process of the server does: all of it, or a part where several processes or hosts share the work."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.errors import SettingsError
from app.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Role(StrEnum):
    """A part of the server's work."""

    LISTENER = "listener"
    """Takes instances, and decides about series that are complete."""
    WORKER = "worker"
    """Runs graphs and delivers what they make."""
    WEB = "web"
    """Offers the API."""


@dataclass(frozen=True)
class Share:
    """What a process has to do, and under which name."""

    roles: frozenset[Role]
    name: str
    """Empty where one process does all; else its own among all processes: its audit log lies under it."""

    @classmethod
    def of(cls, roles: Collection[Role], name: str | None, settings: Settings) -> Share:
        """Return the share that the command line asks for; no role means all.

        Raises
        ------
        SettingsError
            ``process-name``, or what `_check` raises.
        """
        parted = bool(roles) and set(roles) != set(Role)
        if name is None and parted:
            name = "-".join([socket.gethostname().split(".")[0], *sorted(roles)])
        if name is not None and not _NAME.fullmatch(name):
            raise SettingsError(
                f"the process' name is '{name}'; expected letters, digits, '.', '_' and '-', 64 at most, as in "
                "--name worker-1",
                code="process-name",
            )
        share = cls(frozenset(roles) or frozenset(Role), name or "")
        share._check(settings)
        return share

    def _check(self, settings: Settings) -> None:
        """Refuse a share that can't meet the others: embedded parts serve the process alone that starts them."""
        if self.name and settings.database.url is None:
            raise SettingsError(
                "several processes share one database, and the embedded one serves its own process only; set "
                "database.url to a PostgreSQL that all of them reach, or leave out --role and --name",
                code="role-needs-database",
            )
        if Role.WEB in self.roles and self.roles != set(Role) and not settings.web.enabled:
            raise SettingsError(
                "the role web is to offer the API, and web.enabled is false; set it to true", code="role-needs-web"
            )
        if self.roles == {Role.WEB} and not settings.triton.addresses:
            raise SettingsError(
                "the role web prompts models on the Triton that the workers use, and an embedded one serves its own "
                "process only; set triton.address",
                code="role-needs-triton",
            )

    def has(self, role: Role) -> bool:
        """Whether the process does this part."""
        return role in self.roles

    def audit_folder(self, settings: Settings) -> Path:
        """Return where its audit log lies: each process writes a chain of its own."""
        return settings.audit_folder / self.name

    def run_folder(self, settings: Settings) -> Path:
        """Return where its sockets and scratch lie."""
        return settings.run_folder / self.name
