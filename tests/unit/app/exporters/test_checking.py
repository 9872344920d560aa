"""What is not there, or is no model, is said with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ImportRefused
from app.exporters.checking import list_models, load_model


@pytest.mark.parametrize(("name", "hint"), [("liver", False), ("lite_medsam", True)])
def test_a_model_that_is_not_there_is_named_with_what_brings_it(name: str, hint: bool, tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=f"there is no model {name} in .*`limner models import`") as caught:
        load_model(tmp_path / name)
    assert caught.value.code == "file-missing"
    assert ("make lite-medsam" in str(caught.value)) == hint


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"family": "sam"}', "is not a manifest as `limner models import sam` writes it"),
        ("{}", "lacks"),
        ("no JSON", "lacks"),
    ],
)
def test_a_manifest_says_of_which_kind_a_model_is(manifest: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text(manifest)
    (listed,) = list_models(tmp_path)
    assert listed.package is None
    assert said in listed.problem
