"""The real CT: complete after writing, untouched in its pixels, its reference segmentation where the organs are."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests import data


def test_series_is_complete_and_its_pixel_data_untouched(abdominal_ct: list[Path], abdominal_ct_source: Path) -> None:
    written = [pydicom.dcmread(path) for path in abdominal_ct]
    published = {
        str(dataset.file_meta.MediaStorageSOPInstanceUID): dataset
        for dataset in map(pydicom.dcmread, (abdominal_ct_source / "example_ct_dicom").iterdir())
    }
    assert len(written) == data.SLICES
    assert len({dataset.SeriesInstanceUID for dataset in written}) == 1
    assert {dataset.SOPInstanceUID for dataset in written} == set(published)
    for dataset in written:
        source = published[dataset.SOPInstanceUID]
        assert not source.get("StudyInstanceUID")
        assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.JPEG2000Lossless
        assert dataset.PixelData == source.PixelData
        assert dataset.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_series_is_the_same_bytes_each_time(abdominal_ct: list[Path], tmp_path: Path) -> None:
    again = data.abdominal_ct_series(tmp_path)
    assert [path.name for path in again] == [path.name for path in abdominal_ct]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(again, abdominal_ct, strict=True))


@pytest.mark.parametrize(("label", "expected"), [(data.LIVER, 90), (data.SPLEEN, 80)])
def test_reference_lies_on_the_organs(
    label: int, expected: float, abdominal_ct: list[Path], abdominal_ct_source: Path
) -> None:
    reference = data.reference_labels(abdominal_ct_source)
    datasets = sorted(map(pydicom.dcmread, abdominal_ct), key=lambda one: float(one.ImagePositionPatient[2]))
    hounsfield = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in datasets])
    inside = hounsfield[reference == label]
    assert inside.size > 100_000
    assert abs(inside.mean() - expected) < 5
    assert inside.std() < 25


def test_only_the_understood_kind_of_nifti_is_read(tmp_path: Path, abdominal_ct_source: Path) -> None:
    import gzip

    content = bytearray(gzip.decompress((abdominal_ct_source / "example_seg_dicom.nii.gz").read_bytes()))
    content[70] = 16  # float32
    (tmp_path / "other.nii.gz").write_bytes(gzip.compress(bytes(content), 1))
    with pytest.raises(ValueError, match="expected a little-endian"):
        data.read_nifti(tmp_path / "other.nii.gz")
