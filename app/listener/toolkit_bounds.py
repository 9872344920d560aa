"""Bounds for a peer of the toolkit's loop, which has none: it reads on whatever waits, however long a message gets.

Each report would be served by a new thread at once, other messages would queue, and a data set would grow in memory.
So nothing is read until what came before is answered, as in our own loop (docs/adr/0007), and a message has a limit.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog
from pynetdicom import evt

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

LONGEST_MESSAGE = 1 << 17
"""Bytes of a message, command and data set together: a report on 700 instances is shorter, and no job has as many."""

_INVALID_PDU = "Evt19"  # what has the state machine abort the association (PS3.8 table 9-10)

_log = structlog.get_logger(__name__)


class ToolkitBounds:
    """What one association's peer may have on its way while the toolkit's loop serves it.

    A peer whose message has no answer, such as a response to nothing, is not heard any more, and is aborted when the
    network time-out is over.

    Parameters
    ----------
    association
        The association, before it runs.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._unanswered = 0
        self.is_broken = False
        """Whether a message was too long: nothing is read any more, also not to be thrown away, until the time-out."""
        self._lock = threading.Lock()
        association.bind(evt.EVT_DIMSE_RECV, self._on_message)
        association.bind(evt.EVT_DIMSE_SENT, self._on_answer)

    def may_read(self) -> bool:
        """Whether the next PDU of an established association may be read. Has it aborted if a message is too long.

        For the thread that reads, before each PDU: a message is longer than its limit by one PDU at most.
        """
        message = self._association.dimse.message
        if message is not None:
            data_set = message.data_set
            length = message.encoded_command_set.tell() + (data_set.tell() if data_set is not None else 0)
            if length > LONGEST_MESSAGE:
                self.is_broken = True
                _log.warning("association aborted", code="protocol-broken", reason="a message goes on and on")
                self._association.dul.event_queue.put(_INVALID_PDU)
                return False
        with self._lock:
            return self._unanswered <= 0

    def _on_message(self, event: Event) -> None:
        """Count a message, in the thread that reads, before anybody is told of it."""
        with self._lock:
            self._unanswered += 1

    def _on_answer(self, event: Event) -> None:
        """Count an answer, in the thread that served."""
        with self._lock:
            self._unanswered -= 1
