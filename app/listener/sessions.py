"""What the listener remembers of each association, from its request to its end."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from app.identifiers import UID
from app.listener.inspection import InstanceHeader

if TYPE_CHECKING:
    from pynetdicom.association import Association


@dataclass(eq=False)
class Session:
    """One association with a peer. Its lock is held while an instance is kept."""

    calling_ae_title: str
    called_ae_title: str
    source_host: str
    admitted: bool = False
    refusal: str = ""
    """Why it was not admitted, as a code."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    number: uuid.UUID = field(default_factory=uuid.uuid4)
    """What the records call the association."""
    is_released: bool = False
    """Whether the peer ended it in order (A-RELEASE), all that it sent having been answered."""
    has_ended: bool = False
    may_be_recorded: bool = False
    """Whether the records may know of the association: they were told of a series that it brings."""
    _series: set[tuple[UID, UID]] = field(default_factory=set)
    _begun: set[UID] = field(default_factory=set)
    _shortages: set[str] = field(default_factory=set)
    _counts: dict[UID, Counter[UID]] = field(default_factory=dict)

    def participants(self) -> dict[str, str]:
        """Return who took part, as details of an audit record."""
        return {
            "calling_ae_title": self.calling_ae_title,
            "called_ae_title": self.called_ae_title,
            "source_host": self.source_host,
        }

    def is_new_study(self, study_instance_uid: UID) -> bool:
        """Whether this association has not yet brought an instance of the study."""
        return study_instance_uid not in self._begun

    def begin_study(self, study_instance_uid: UID) -> None:
        """Remember that the begin of the study's transfer is in the audit log."""
        self._begun.add(study_instance_uid)

    def is_new_series(self, study_instance_uid: UID, series_instance_uid: UID) -> bool:
        """Whether this association has not yet brought an instance of the series."""
        return (study_instance_uid, series_instance_uid) not in self._series

    def begin_series(self, study_instance_uid: UID, series_instance_uid: UID) -> None:
        """Remember that the records know that this association brings the series."""
        self._series.add((study_instance_uid, series_instance_uid))

    def is_new_shortage(self, code: str) -> bool:
        """Whether this shortage is met for the first time in this association."""
        is_new = code not in self._shortages
        self._shortages.add(code)
        return is_new

    def count(self, header: InstanceHeader) -> None:
        """Count an instance that is about to be acknowledged."""
        self._counts.setdefault(header.study_instance_uid, Counter())[header.sop_class_uid] += 1

    def take_counts(self) -> dict[UID, Counter[UID]]:
        """Return how many instances of each SOP class came for each study since the last call."""
        counts, self._counts = self._counts, {}
        return counts


class Sessions:
    """The sessions of a listener's associations. An association that is gone is forgotten."""

    def __init__(self) -> None:
        self._sessions: WeakKeyDictionary[Association, Session] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def add(self, association: Association, session: Session) -> None:
        """Remember a session."""
        with self._lock:
            self._sessions[association] = session

    def of(self, association: Association) -> Session | None:
        """Return an association's session; None if it never asked."""
        with self._lock:
            return self._sessions.get(association)

    def all(self) -> Iterator[Session]:
        """Yield the sessions that are not forgotten."""
        with self._lock:
            sessions = list(self._sessions.values())
        yield from sessions
