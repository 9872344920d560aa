"""What an attempt's record means for its job: which results go out, whether a flag is set, whether the job is held."""

from __future__ import annotations

from app.graph import CompletionRecord
from app.jobs.entries import Agreement, Consequence, Finding, Flag, OnDisagreement, Role

_LONGEST_REASON = 500


def consequence_of(
    record: CompletionRecord, *, on_disagreement: OnDisagreement, deliver_generalist: bool
) -> Consequence:
    """Return what becomes of a run's results.

    Parameters
    ----------
    on_disagreement
        The rule's: ``warn`` sends as if there were no flag, ``hold`` sends nothing before a person decides, ``both``
        sends both models' objects. It applies to a generalist that failed too, which has no object to send.
    deliver_generalist
        Whether the generalist's object is sent whatever the agreement.
    """
    flag, reason = _flag(record)
    roles: list[Role] = ["specialist"]
    has_both = any(finding.role == "generalist" for finding in record.findings)
    if has_both and (deliver_generalist or (flag and on_disagreement == "both")):
        roles.append("generalist")
    return Consequence(
        sent=tuple(roles),
        is_held=bool(flag) and on_disagreement == "hold",
        flag=flag,
        flag_reason=reason,
        findings=tuple(
            Finding(finding.role, one.number, one.label, one.code, one.volume_ml)
            for finding in record.findings
            for one in finding.segments
        ),
        agreement=tuple(
            Agreement(
                number=one.number,
                label=one.label,
                dice=one.dice,
                distance_mm=one.distance_mm,
                difference_ml=one.difference_ml,
                difference_percent=one.difference_percent,
                beyond=one.beyond,
            )
            for one in record.agreement
        ),
        notes=record.notes,
    )


def _flag(record: CompletionRecord) -> tuple[Flag, str]:
    failure = record.generalist_failure
    if failure is not None:
        return "generalist-failed", f"{failure.code}: {failure.reason}"[:_LONGEST_REASON]
    beyond = [one.in_words for one in record.agreement if one.beyond]
    if beyond:
        return "disagreement", "; ".join(beyond)[:_LONGEST_REASON]
    return "", ""
