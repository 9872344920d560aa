"""Parts of the body as DICOM headers and model cards name them, as sets of regions that can be compared.

Two terms fit if their regions have one in common: a liver is found in ABDOMEN, in CHESTABDPELVIS and in WHOLEBODY. The
terms are those of PS3.16 Annex L and what scanners write beside them; the codes are of CID 4031 and of its forerunners.
"""

from __future__ import annotations

from types import MappingProxyType

import pydicom
from pydicom.sr.coding import Code

from operators.gate.attributes import items, texts

_ALL = frozenset({"head", "neck", "chest", "abdomen", "pelvis", "arm", "leg"})
_TERMS_BY_REGIONS = {
    "head": "HEAD BRAIN CEREBELLUM SKULL FACE FACIALBONES ORBIT EYE SINUS PARANASALSINUS JAW MANDIBLE MAXILLA EAR IAC "
    "NOSE TMJ PAROTID SELLA PITUITARY CIRCLEOFWILLIS",
    "neck": "NECK CSPINE CERVICALSPINE THYROID LARYNX PHARYNX CAROTID",
    "head neck": "HEADNECK",
    "neck chest": "NECKCHEST TRACHEA ESOPHAGUS CTSPINE CERVICOTHORACICSPINE",
    "neck chest abdomen": "NECKCHESTABDOMEN NECKCHESTABD",
    "neck chest abdomen pelvis": "NECKCHESTABDPELVIS NECKCHESTABDPELV NECKCHESTABDOMENPELVIS SPINE WSPINE",
    "head neck chest abdomen pelvis": "HEADNECKCHESTABDPELVIS",
    "chest": "CHEST THORAX LUNG LUNGS HEART CARDIAC BREAST CORONARYARTERY CORONARY TSPINE THORACICSPINE RIB RIBS "
    "STERNUM CLAVICLE SCAPULA MEDIASTINUM BRONCHUS THORACICAORTA PULMONARYARTERY",
    "chest abdomen": "CHESTABDOMEN CHESTABD TLSPINE THORACOLUMBARSPINE",
    "chest abdomen pelvis": "CHESTABDPELVIS CHESTABDPELV CHESTABDOMENPELVIS TORSO TRUNK AORTA",
    "abdomen": "ABDOMEN LIVER SPLEEN KIDNEY KIDNEYS PANCREAS STOMACH GALLBLADDER BILEDUCT ADRENAL DUODENUM LSPINE "
    "LUMBARSPINE ABDOMINALAORTA UPPERABDOMEN",
    "abdomen pelvis": "ABDOMENPELVIS ABDPELVIS ABDPELV COLON RECTUMCOLON INTESTINE SMALLINTESTINE LARGEINTESTINE "
    "URETER LSSPINE LUMBOSACRALSPINE URINARYTRACT",
    "pelvis": "PELVIS BLADDER PROSTATE UTERUS OVARY RECTUM SSPINE SACRUM COCCYX SIJOINT TESTIS",
    "pelvis leg": "HIP HIPS PELVISLOWEREXTREMITY",
    "arm": "ARM HUMERUS ELBOW FOREARM WRIST HAND FINGER THUMB UPPERLIMB",
    "chest arm": "SHOULDER",
    "leg": "LEG THIGH FEMUR KNEE CALF ANKLE FOOT TOE PATELLA LOWERLIMB",
    "arm leg": "EXTREMITY",
    "phantom": "PHANTOM",
}
_REGIONS = MappingProxyType(
    {
        **dict.fromkeys(("WHOLEBODY", "ENTIREBODY"), _ALL),
        **{term: frozenset(regions.split()) for regions, terms in _TERMS_BY_REGIONS.items() for term in terms.split()},
    }
)
_TERM_OF_CODE = MappingProxyType(
    {
        **{"818981001": "ABDOMEN", "113345001": "ABDOMEN", "816094009": "CHEST", "51185008": "CHEST"},
        **{"816092008": "PELVIS", "12921003": "PELVIS", "69536005": "HEAD", "45048000": "NECK", "774007": "HEADNECK"},
        **{"818982008": "ABDOMENPELVIS", "416949008": "ABDOMENPELVIS", "416550000": "CHESTABDOMEN"},
        **{"416775004": "CHESTABDPELVIS", "417437006": "NECKCHEST", "416152001": "NECKCHESTABDOMEN"},
        **{"416319003": "NECKCHESTABDPELVIS", "38266002": "WHOLEBODY", "66019005": "EXTREMITY"},
        **{"53120007": "UPPERLIMB", "61685007": "LOWERLIMB", "421060004": "SPINE", "122494005": "CSPINE"},
        **{"122495006": "TSPINE", "122496007": "LSPINE", "10200004": "LIVER", "78961009": "SPLEEN"},
        **{"64033007": "KIDNEY", "15776009": "PANCREAS", "69695003": "STOMACH", "71854001": "COLON"},
        **{"41216001": "PROSTATE", "89837001": "BLADDER", "35039007": "UTERUS", "34402009": "RECTUM"},
        **{"80891009": "HEART", "39607008": "LUNG", "76752008": "BREAST", "12738006": "BRAIN"},
        **{"29836001": "HIP", "72696002": "KNEE", "16982005": "SHOULDER", "706342009": "PHANTOM"},
    }
)
"""Code values of SNOMED CT."""
_SNOMED_DESIGNATORS = ("SCT", "SRT", "SNM3", "99SDM")
_MOST_SHOWN = 20


def regions_of(term: str) -> frozenset[str]:
    """Return the regions that a term covers; none if it is not known. Case, spaces, hyphens and "and" don't count."""
    words = [word for word in _words(term) if word not in ("AND", "WITH")]
    return _REGIONS.get("".join(words), frozenset())


def examined(header: pydicom.Dataset) -> dict[str, frozenset[str]]:
    """Return the known parts of the body that an image says it shows (PS3.3 C.7.3.1, 10.5), with their regions."""
    terms = [*texts(header, "BodyPartExamined"), *(_coded(item) for item in items(header, "AnatomicRegionSequence"))]
    return {term[:_MOST_SHOWN]: regions for term in terms if (regions := regions_of(term))}


def _words(term: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in term.upper()).split()


def _coded(item: pydicom.Dataset) -> str:
    """The term of a coded region; empty if it is not known."""
    values, designators = texts(item, "CodeValue"), texts(item, "CodingSchemeDesignator")
    if not values or not designators or designators[0] not in _SNOMED_DESIGNATORS:
        return ""
    if values[0] in _TERM_OF_CODE:
        return _TERM_OF_CODE[values[0]]
    older = Code(values[0], "SRT", "")  # pydicom knows what became of the codes of SNOMED RT
    return next((term for value, term in _TERM_OF_CODE.items() if older == Code(value, "SCT", "")), "")
