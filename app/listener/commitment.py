"""Reports of destinations on what they keep: N-EVENT-REPORT, for which we are SCU (PS3.4 section J.3.3).

A destination that was asked by N-ACTION may report over an association that it opens itself: it proposes the SCP role
for itself (PS3.7 section D.3.3.4). The report is kept before it is answered, and acted on elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel

from app.audit.events import AuditEvent, Outcome
from app.delivery.commitment import answer_report
from app.delivery.destination import ReportedCommitment
from app.errors import AuditError
from app.listener.presentation import STORAGE_SOP_CLASSES, UNCOMPRESSED_TRANSFER_SYNTAXES, verification_context

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from app.audit.log import AuditLog

NOT_AUTHORISED = 0x0124

_log = structlog.get_logger(__name__)


class CommitmentReports:
    """Takes the reports.

    Parameters
    ----------
    destinations
        Names of the destinations that may report, by the title that each calls from.
    keep
        Keeps a report of one of these destinations durably; False if none of them was asked for it.
    audit
        Where refused reports are written.
    """

    def __init__(
        self,
        destinations: Mapping[str, Sequence[str]],
        keep: Callable[[ReportedCommitment, Sequence[str]], bool],
        audit: AuditLog,
    ) -> None:
        self._destinations = destinations
        self._keep = keep
        self._audit = audit
        self._context = build_context(StorageCommitmentPushModel, list(UNCOMPRESSED_TRANSFER_SYNTAXES))
        # the peer is SCP, or it has no business with it
        self._context.scu_role, self._context.scp_role = False, True

    def contexts_for(self, association: Association) -> list[PresentationContext]:
        """Return what is accepted on an association that brings reports; nothing if it brings none.

        Reports come where Storage Commitment is proposed with the SCP role for the requestor, by the title of a
        destination that is asked for its commitment. Of anybody else they are heard, to be refused, where nothing
        that could be stored is proposed. Storage is never accepted beside them: the toolkit serves such an
        association, and would hold whole objects in memory.

        Parameters
        ----------
        association
            One that asks and is not answered yet.
        """
        requestor = association.requestor
        proposed = {str(context.abstract_syntax) for context in requestor.requested_contexts}
        role = requestor.role_selection.get(StorageCommitmentPushModel)
        if not self._destinations or StorageCommitmentPushModel not in proposed or role is None or not role.scp_role:
            return []
        if _title(association) not in self._destinations and not proposed.isdisjoint(STORAGE_SOP_CLASSES):
            return []
        return [verification_context(), self._context]

    def report(self, event: Event) -> tuple[int, None]:
        """Answer N-EVENT-REPORT: success once the report is kept. Never raises."""
        title = _title(event.assoc)
        names = self._destinations.get(title, ())
        if not names:
            self._audit_refusal(event, title, "report-from-stranger")
            return NOT_AUTHORISED, None

        def keep(report: ReportedCommitment) -> bool:
            kept = self._keep(report, names)
            if not kept:
                self._audit_refusal(event, title, "transaction-unknown", report.transaction_uid)
            return kept

        return answer_report(event, keep), None

    def _audit_refusal(self, event: Event, title: str, code: str, transaction_uid: str = "") -> None:
        detail = {"transaction_uid": transaction_uid} if transaction_uid else {}
        host = str(event.assoc.requestor.address)
        _log.warning("a storage commitment report is refused", code=code, source_host=host)
        try:
            self._audit.append(
                AuditEvent.COMMITMENT_REPORT_REFUSED,
                Outcome.MINOR_FAILURE,
                calling_ae_title=title,
                source_host=host,
                code=code,
                **detail,
            )
        except AuditError as error:  # it is refused all the same
            _log.error("a refusal could not be written to the audit log", code=error.code)


def _title(association: Association) -> str:
    """Return the title that a peer calls from, also while it is not answered yet."""
    request = association.requestor.primitive
    return str(request.calling_ae_title if request is not None else "").strip()
