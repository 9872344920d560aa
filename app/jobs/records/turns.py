"""Step 4: whose turn it is to send to a destination, and when one that is down may be tried next."""

from __future__ import annotations

from datetime import datetime

from app.jobs.connections import Connection, Connections, read_statements
from app.jobs.entries import Sending
from app.jobs.return_entries import DestinationWindow, DueDelivery, Turn, WaitingTurn

_SQL = read_statements("turns.sql")


class TurnRecords(Connections):
    """One sender a destination at a time, over all workers, and one attempt a window to one that is down."""

    def take_turn(self, destination: str, address: str, holder: str, lease_seconds: float) -> Turn | None:
        """Take the turn to send to a destination; None if another has it, or nobody may connect yet.

        Whoever has it comes to everything that was waiting when this was called, and what waits for a window has a
        task at its end: the caller need not come again.

        Parameters
        ----------
        holder
            Who asks: one that asks again, as after its worker's death, takes its own turn over.
        lease_seconds
            So long after its last word a holder counts as gone.
        """
        facts = {"destination": destination, "address": address, "holder": holder, "lease_seconds": lease_seconds}
        with self.transaction() as connection:
            connection.execute(_SQL["make_window"], facts)
            window = connection.execute(_SQL["lock_window"], facts).fetchone()
            assert window is not None  # noqa: S101 - it was made just now
            if window["is_other"]:
                connection.execute(_SQL["reset_window"], facts)
            if window["is_taken"] or window["is_closed"] and not window["is_other"]:
                return None
            row = connection.execute(_SQL["take_turn"], facts).fetchone()
            assert row is not None  # noqa: S101 - it is locked
        return Turn(destination, row["turn"], row["failures"], lease_seconds)

    def keep_turn(self, connection: Connection, turn: Turn) -> bool:
        """Say that the holder is there still; False if it was overtaken."""
        return self._happened(_SQL["keep_turn"], turn._asdict(), connection)

    def lock_turn(self, connection: Connection, turn: Turn) -> bool:
        """Keep others from asking for the turn until the transaction ends; False if the holder was overtaken."""
        return self._happened(_SQL["lock_turn"], turn._asdict(), connection)

    def something_due(self, connection: Connection, destination: str) -> bool:
        """Whether something waits for the destination whose time has come."""
        row = connection.execute(_SQL["something_due"], {"destination": destination}).fetchone()
        return row is not None and bool(row["is_due"])

    def give_up_turn(self, connection: Connection, turn: Turn) -> None:
        """End a turn."""
        connection.execute(_SQL["give_up_turn"], turn._asdict())

    def close_window(
        self, connection: Connection, turn: Turn, code: str, reason: str, seconds: float
    ) -> datetime | None:
        """Record that the destination is down and end the turn; when it may be tried next. None if overtaken."""
        facts = {**turn._asdict(), "code": code, "reason": reason, "seconds": seconds}
        row = connection.execute(_SQL["close_window"], facts).fetchone()
        return None if row is None else row["next_attempt_at"]

    def open_window(self, turn: Turn) -> bool:
        """Record that the destination answers; False if the turn was overtaken."""
        return self._happened(_SQL["open_window"], turn._asdict())

    def is_closed(self, destination: str, address: str) -> bool:
        """Whether the destination is down, and nobody connects to it now but whoever has its turn."""
        return bool(self._rows(_SQL["closed_window"], {"destination": destination, "address": address}))

    def windows(self) -> dict[str, DestinationWindow]:
        """Return how each destination that was ever sent to answers, by its name."""
        return {row["destination"]: DestinationWindow(**row) for row in self._rows(_SQL["windows"], ())}

    def due_deliveries(self, destination: str, limit: int, *, has_taken: bool = True) -> list[DueDelivery]:
        """Return what is to be sent now, the first first.

        Parameters
        ----------
        has_taken
            Whether the destination has just taken an object. Else what was tried least stands first, urgent or not.
        """
        facts = {"destination": destination, "limit": limit, "has_taken": has_taken}
        rows = self._rows(_SQL["due_deliveries"], facts)
        return [
            DueDelivery(Sending(row["job_id"], row["digest"], row["destination"]), row["path"], row["is_asked"])
            for row in rows
        ]

    def destinations_in_want(self) -> list[str]:
        """Return the destinations for which something has been due for a while, and nobody attends to it."""
        return sorted(row["destination"] for row in self._rows(_SQL["destinations_in_want"], ()))

    def waiting_turns(self) -> list[WaitingTurn]:
        """Return the destinations that tasks wait for, with the queues in which they do."""
        return [WaitingTurn(**row) for row in self._rows(_SQL["waiting_turns"], ())]

    def move_turns(self, turn: WaitingTurn, queue: str) -> None:
        """Put a destination's tasks that wait in one queue into another."""
        with self.transaction() as connection:
            self._move_alone(connection)
            connection.execute(_SQL["move_turns"], {**turn._asdict(), "to_queue": queue})
