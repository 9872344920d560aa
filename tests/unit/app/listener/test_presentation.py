import pydicom.uid
import pytest
from pydicom._uid_dict import UID_dictionary
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.presentation import negotiate_as_acceptor
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from app.identifiers import parse_uid
from app.listener.presentation import (
    COMPRESSED_TRANSFER_SYNTAXES,
    REFUSED_TRANSFER_SYNTAXES,
    STORAGE_SOP_CLASSES,
    TRANSFER_SYNTAXES,
    UNCOMPRESSED_TRANSFER_SYNTAXES,
    supported_contexts,
)


def test_every_storage_class_is_accepted_in_every_syntax_and_served() -> None:
    contexts = {str(context.abstract_syntax): context for context in supported_contexts()}
    for sop_class in STORAGE_SOP_CLASSES:
        assert [str(syntax) for syntax in contexts[sop_class].transfer_syntax] == list(TRANSFER_SYNTAXES)
        assert uid_to_service_class(sop_class) is StorageServiceClass
    assert "1.2.840.10008.1.1" in contexts


def test_the_toolkits_list_and_the_newer_and_retired_classes_are_there() -> None:
    known = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    assert known <= set(STORAGE_SOP_CLASSES)
    for newer in ("1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.66.8", "1.2.840.10008.5.1.4.1.1.5"):
        assert newer in STORAGE_SOP_CLASSES
    assert len(STORAGE_SOP_CLASSES) >= 188
    for uid in STORAGE_SOP_CLASSES:
        parse_uid(uid)


def test_every_syntax_the_toolkit_knows_is_accepted_or_refused_with_a_reason() -> None:
    judged = set(TRANSFER_SYNTAXES) | set(REFUSED_TRANSFER_SYNTAXES)
    assert set(map(str, ALL_TRANSFER_SYNTAXES)) <= judged
    assert not set(TRANSFER_SYNTAXES) & set(REFUSED_TRANSFER_SYNTAXES)
    known = {
        uid for uid, (_, kind, _, retired, _) in UID_dictionary.items() if kind == "Transfer Syntax" and not retired
    }
    assert known <= judged


def test_what_deflates_is_refused() -> None:
    for syntax in TRANSFER_SYNTAXES:
        assert not pydicom.uid.UID(syntax).is_deflated
        assert "eflate" not in pydicom.uid.UID(syntax).name
    assert all(pydicom.uid.UID(syntax).is_encapsulated for syntax in COMPRESSED_TRANSFER_SYNTAXES)
    assert not any(pydicom.uid.UID(syntax).is_encapsulated for syntax in UNCOMPRESSED_TRANSFER_SYNTAXES)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"], "1.2.840.10008.1.2.1"),
        (["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2"], "1.2.840.10008.1.2"),
        (["1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90"], "1.2.840.10008.1.2.4.90"),
        (["1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.80"], "1.2.840.10008.1.2.4.80"),
    ],
)
def test_a_sender_that_offers_a_choice_is_never_asked_for_a_lossy_one(offered: list[str], chosen: str) -> None:
    offer = build_context(STORAGE_SOP_CLASSES[0], offered)
    offer.context_id = 1
    [answer], _ = negotiate_as_acceptor([offer], supported_contexts())
    assert [str(syntax) for syntax in answer.transfer_syntax] == [chosen]
