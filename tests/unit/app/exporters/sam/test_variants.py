"""A variant is a file, and what is wrong with one is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import ImportRefused
from app.exporters.sam.planning import plan_generalist
from app.exporters.sam.variants import known_variants, read_variant

FOLDER = Path(__file__).resolve().parents[5] / "app/exporters/sam_variants"


def test_every_file_is_a_variant_or_a_refusal_in_words() -> None:
    promptable = {"lite_medsam", "medsam", "mobile_sam", "sam_med2d", "sam_vit_b", "sam_vit_h", "sam_vit_l"}
    remembering = {name for name in known_variants() if "sam2" in name and name not in promptable}
    assert set(known_variants()) == promptable | remembering | {"samed"}
    assert len(remembering) == 9  # four sizes of two generations, and MedSAM2
    for name in promptable | remembering:
        variant = read_variant(name)
        assert variant.contract.licence == variant.licence
        assert (variant.licence == "Apache-2.0") == (name != "medsam2"), "as those say who trained the weights"
        assert variant.contract.image.size == variant.architecture["encoder"]["size"] == variant.contract.prompts.size
        assert variant.contract.family == ("sam2" if name in remembering else "sam")


def test_the_licence_of_weights_is_not_taken_from_their_code() -> None:
    licence = read_variant("medsam2").licence
    assert licence.startswith("CC-BY-SA-4.0 ")
    assert "research and education only" in licence


def test_a_model_without_prompts_is_refused_with_words() -> None:
    with pytest.raises(ImportRefused, match="takes no prompt and answers nine masks") as caught:
        read_variant("samed")
    assert caught.value.code == "variant-refused"


@pytest.mark.parametrize("name", ["sam_vit_g", "../sam_variants/medsam", ""])
def test_an_unknown_variant_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ImportRefused, match="lite_medsam, medsam") as caught:
        read_variant(name)
    assert caught.value.code == "variant-unknown"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"licence": None}, "KeyError"),
        ({"contract": {"family": "sam"}}, "KeyError"),
        ({"architecture": None}, "KeyError"),
    ],
)
def test_a_file_of_ones_own_that_is_no_variant_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    content = json.loads((FOLDER / "medsam.json").read_text()) | change
    path = tmp_path / "own.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None} | {"refusal": None}))
    with pytest.raises(ImportRefused, match=said) as caught:
        read_variant(str(path))
    assert caught.value.code == "variant-unreadable"
    with pytest.raises(ImportRefused) as absent:
        read_variant(str(tmp_path / "absent.json"))
    assert absent.value.code == "variant-unreadable"


def test_a_file_of_ones_own_is_a_variant_called_as_it_is(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "own.json", tmp_path / "weights.pth"
    path.write_text((FOLDER / "medsam.json").read_text())
    checkpoint.write_bytes(b"")
    job = plan_generalist(checkpoint, str(path))
    assert (job.name, job.models, job.algorithm_name) == ("own", ("own", "own_decoder"), "MedSAM")
    assert job.read_variant().contract == read_variant("medsam").contract


def test_what_is_not_there_or_can_not_be_called_so_is_refused_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused) as caught:
        plan_generalist(tmp_path / "absent.pth", "medsam")
    assert caught.value.code == "checkpoint-missing"
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(ImportRefused) as caught:
        plan_generalist(checkpoint, "medsam", adapter=tmp_path / "absent.pth")
    assert caught.value.code == "checkpoint-missing"
    with pytest.raises(ImportRefused) as caught:
        plan_generalist(checkpoint, "medsam", name="Med SAM")
    assert caught.value.code == "name-unusable"


@pytest.mark.parametrize(("variant", "name"), [("sam2.1_hiera_b+", "sam2_1_hiera_b_"), ("medsam2", "medsam2")])
def test_a_variants_name_becomes_a_folders_and_one_with_memory_has_four_networks(
    variant: str, name: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.touch()
    job = plan_generalist(checkpoint, variant)
    assert job.models == (name, f"{name}_decoder", f"{name}_memory_encoder", f"{name}_memory_attention")
