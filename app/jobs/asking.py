"""Before an object is sent again whose last attempt nobody learned the end of, its destination is asked for it.

A connection that broke after the data set had left, and a server that died while it sent, leave both possible. The same
bytes under the same SOP Instance UID do no harm where they arrive twice, so what can't be asked is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.audit.events import AuditEvent, Outcome
from app.audit.log import AuditLog
from app.delivery.destination import Destination, TellsWhatItHolds
from app.errors import DeliveryError
from app.jobs.outcomes import NOT_TOLD, Outcomes, SentObject, is_of_peer, was_reached
from app.jobs.queue import GROUND
from app.jobs.records import Records, Sending
from app.telemetry import get_logger

_LETS_NOBODY_IN = frozenset({"association-rejected", "association-aborted"})
"""So does one that is starting, and for good one that takes nothing but storage."""

_log = get_logger(__name__)


class Asking:
    """Asks destinations what they hold. Its parameters are those of `app.jobs.workflow.Workflow`."""

    def __init__(
        self, *, records: Records, audit: AuditLog, destinations: Mapping[str, Destination], outcomes: Outcomes
    ) -> None:
        self._records = records
        self._audit = audit
        self._destinations = destinations
        self._outcomes = outcomes

    def settle(self, sendings: Sequence[Sending], keep: Callable[[], None]) -> bool:
        """Ask for each of these objects: what is there is delivered, the rest is due. Whether it told of any.

        Parameters
        ----------
        keep
            Called before each question, each of which may wait for the destination: it keeps the turn.

        Raises
        ------
        DeliveryError
            If the destination is found down by it. Where it was not reached the object is asked for again next time,
            and else sent without a question.
        """
        has_told, away = False, ""
        for sending in sendings:
            keep()
            one = self._outcomes.begin(sending)
            if one is None:
                continue  # it has ended meanwhile
            if one.begun.is_withdrawn:
                self._outcomes.withdrawn(one)
            elif self._outcomes.gave_up(one, spare=1):
                continue  # whether the last of its attempts arrived is asked before that
            elif away:
                self._not_told(one, away)
            else:
                told, away = self._settle(one)
                has_told = told or has_told
        return has_told

    def _settle(self, one: SentObject) -> tuple[bool, str]:
        """Ask for an object. Whether it was told of, and why nothing else is to be asked for now.

        Where another application entity is asked, and not reached, each question may wait for its whole time-out, and
        what is to be sent for all of them.
        """
        away = ""
        try:
            held = self._holds(one)
        except GROUND:  # before the question
            self._outcomes.not_tried(one)
            raise
        except DeliveryError as error:
            if _may_tell_later(one, error):
                self._outcomes.told(one, is_known=False, code=error.code, reason=f"{error}; it is asked again")
                raise
            self._not_told(one, str(error))
            if is_of_peer(error):
                raise
            away = "" if was_reached(error) else str(error)
        except Exception as error:  # noqa: BLE001 - a peer's border: it is sent again instead
            _log.error("delivery.defect", job_id=str(one.job.id), exc_info=True)
            self._not_told(one, f"an unexpected {type(error).__name__}; the diagnostic log tells where")
        else:
            if held:
                self._outcomes.delivered(one, reason="it had arrived already, as the destination said when asked")
            elif held is None:
                self._not_told(one, "the destination is not asked")
            else:
                self._outcomes.told(one, is_known=True)
            return held is not None, ""
        return False, away

    def _holds(self, one: SentObject) -> bool | None:
        if one.delivery.destination not in self._destinations:
            return None
        target = self._destinations[one.delivery.destination]
        if not isinstance(target, TellsWhatItHolds) or not target.can_be_asked:
            return None
        self._audit.append(AuditEvent.DESTINATION_ASKED, Outcome.SUCCESS, **one.detail)
        held = target.holds(one.job.study_instance_uid, one.begun.series_instance_uid, one.begun.sop_instance_uid)
        _log.info("delivery.asked", job_id=str(one.job.id), destination=one.delivery.destination, held=held)
        return held

    def _not_told(self, one: SentObject, reason: str) -> None:
        said = f"it is not known whether the destination has it ({reason}); it is sent again"
        _log.warning("delivery.not_told", job_id=str(one.job.id), destination=one.delivery.destination)
        self._outcomes.told(one, is_known=False, code=NOT_TOLD, reason=said)


def _may_tell_later(one: SentObject, error: DeliveryError) -> bool:
    """Whether to ask again rather than to send: it was not reached, and an object could not have reached it either.

    One that lets nobody in is asked a second time, and no more: DCMTK's dcmrecv rejects each association that proposes
    no storage, and would never get the object.
    """
    is_away = is_of_peer(error) and not was_reached(error)
    return is_away and not (error.code in _LETS_NOBODY_IN and one.delivery.code == error.code)
