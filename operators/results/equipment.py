"""What made a result: equipment and algorithm, told the same way in objects of every kind."""

from __future__ import annotations

import pydicom
from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from pydicom.sr.codedict import codes

from operators.object_kinds import MANUFACTURER
from operators.results.finding import Algorithm, device_uid


def equipment_attributes(algorithm: Algorithm) -> dict[str, str]:
    """Return the arguments of highdicom's classes for the equipment modules (PS3.3 C.7.5.1, C.7.5.2).

    What is not known of it, and empty, is left out.
    """
    attributes = {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": algorithm.name,
        "software_versions": algorithm.version,
        "device_serial_number": algorithm.weights_digest[:16],  # tells these weights from others, and can be read out
    }
    return {name: value for name, value in attributes.items() if value}


def processing_equipment(algorithm: Algorithm) -> ContributingEquipment:
    """Return the algorithm's item of the Contributing Equipment Sequence (PS3.3 C.12.1), as IHE AI Results asks for it.

    Its Contribution DateTime (Type 3) is left out: the same input must give the same bytes.
    """
    item = ContributingEquipment(purpose_of_reference=codes.DCM.ProcessingEquipment, **equipment_attributes(algorithm))
    item.DeviceUID = device_uid(algorithm)  # highdicom has no argument for it
    return item


def identification(algorithm: Algorithm) -> AlgorithmIdentificationSequence:
    """Return the Algorithm Identification (PS3.3 10.16)."""
    return AlgorithmIdentificationSequence(
        name=algorithm.name,
        family=codes.DCM.ArtificialIntelligence,
        version=algorithm.version,
        source=MANUFACTURER,
        parameters=algorithm.all_parameters,
    )


def without_clock(dataset: pydicom.Dataset, date: str, time: str) -> None:
    """Replace what highdicom takes from the clock in an object of any kind, by a date and time (DA, TM)."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    for equipment in dataset.ContributingEquipmentSequence:
        is_processing = equipment.PurposeOfReferenceCodeSequence[0].CodeValue == codes.DCM.ProcessingEquipment.value
        if is_processing and "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = f"{date}{time}"
