"""The gate's settings: what can be chosen, what is told where it can't, and what of it counts as another job."""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import load_settings
from app.settings_gate import GateSettings

PIPELINE = '[[pipeline]]\nname = "liver"\nmodel = "liver"\n'


def _gate(folder: Path, text: str) -> GateSettings:
    path = folder / "limner.toml"
    path.write_text(PIPELINE + text)
    return load_settings(path).pipeline[0].gate


def test_the_gate_belongs_to_the_pipeline_before_it(tmp_path: Path) -> None:
    gate = _gate(
        tmp_path,
        '[pipeline.gate.policies]\nlossy-compression = "refuse"\nwrong-modality = "refuse"\n'
        '[pipeline.gate.take]\nAcquisitionNumber = 2\nEchoTime = 4.6\nImageType = "M"\n',
    )
    assert gate.policies == {"lossy-compression": "refuse", "wrong-modality": "refuse"}
    assert gate.take == {"AcquisitionNumber": 2, "EchoTime": 4.6, "ImageType": "M"}


def test_without_it_the_defaults_apply(tmp_path: Path) -> None:
    assert _gate(tmp_path, "") == GateSettings()
    assert GateSettings().asked == {}


def test_what_is_chosen_as_it_is_by_default_makes_no_other_job() -> None:
    assert GateSettings(policies={"wrong-modality": "refuse", "localizer": "repair"}).asked == {}
    chosen = GateSettings(policies={"wrong-modality": "warn", "localizer": "repair"}, take={"EchoTime": 4.6})
    assert chosen.asked == {"policies": {"wrong-modality": "warn"}, "take": {"EchoTime": 4.6}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[pipeline.gate.policies]\nlossy = "warn"\n', "no check 'lossy'; those with a choice are wrong-modality"),
        (
            '[pipeline.gate.policies]\nslice-missing = "warn"\n',
            "'slice-missing' can't be set to 'warn', only to refuse",
        ),
        ('[pipeline.gate.policies]\nmonochrome1 = "repair"\n', "can't be set to 'repair', only to refuse, warn"),
        ('[pipeline.gate.policies]\nmonochrome1 = "ignore"\n', "'refuse', 'warn' or 'repair'"),
        ("[pipeline.gate.take]\nEcho_Time = 1\n", "no DICOM attribute has the keyword Echo_Time"),
        ("[pipeline.gate.take]\nEchoTime = true\n", "EchoTime"),
        ("[pipeline.gate]\nlocalizer = 1\n", "Extra inputs are not permitted"),
    ],
)
def test_what_can_not_be_chosen_ends_the_start(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        _gate(tmp_path, text)
    assert told in str(caught.value)
