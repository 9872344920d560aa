"""Real series, damaged in every way that is known of: what truth says must become of each is what does.

`tests/mutations/kinds` has the kinds, docs/reference/damaged-input.md the table.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.judges import run_dciodvfy
from tests.mutations import render, results
from tests.mutations.judge import Outcome, Verdict, difference_of, holds, judge, reader_of_limner
from tests.mutations.kind import KINDS, Truth
from tests.mutations.series import MODALITIES, Modality, Placed, clean_series, clean_volume, encoded
from tests.peers import require

RESULTS = results.load()
CASES = [(kind.name, modality) for kind in KINDS.values() for modality in kind.modalities]


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_what_must_become_of_it_does(name: str, modality: Modality) -> None:
    kind = KINDS[name]
    verdict = judge(kind, modality)
    assert verdict.outcome is not Outcome.BROKE
    assert holds(kind, verdict) is kind.is_due, f"{verdict}; see tests.mutations.kind.MERGED"
    assert verdict == RESULTS.verdicts[name, "Limner", modality], "run: python -m tests.mutations"


def test_the_page_is_made_of_the_results() -> None:
    assert render.PAGE.read_text() == render.page(RESULTS), "run: python -m tests.mutations"


def test_every_kind_is_in_the_results_with_both_readers() -> None:
    assert set(RESULTS.verdicts) == {(name, reader, modality) for name, modality in CASES for reader in render.READERS}


def test_every_kind_is_described() -> None:
    assert [kind.name for kind in KINDS.values() if not kind.what or "|" in kind.what] == []
    assert len(KINDS) >= 40


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_truth_has_its_kinds(modality: Modality) -> None:
    found = {kind.truth for kind in KINDS.values() if modality in kind.modalities}
    assert found == set(Truth)


# --- the judge itself ---


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_judge_knows_its_own_truth(modality: Modality) -> None:
    truth = clean_volume(modality)
    assert truth.affine is not None
    assert difference_of(truth, truth) == ""
    affine = truth.affine.copy()
    affine[:, 3] += (len(truth.array) - 1) * affine[:, 0]
    affine[:, 0] = -affine[:, 0]
    assert difference_of(Placed(truth.array[::-1], affine), truth) == ""


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_judge_sees_one_voxel_a_micrometre_and_each_flip(modality: Modality) -> None:
    truth = clean_volume(modality)
    assert truth.affine is not None
    voxel = truth.array.copy()
    voxel[3, 5, 7] += 1
    assert difference_of(Placed(voxel, truth.affine), truth) == "values off by up to 1 in 1 of 20 slices"
    moved = truth.affine.copy()
    moved[0, 3] += 2e-6
    assert "beside its place" in difference_of(Placed(truth.array, moved), truth)
    for axis in range(3):
        assert "values off" in difference_of(Placed(np.flip(truth.array, axis), truth.affine), truth)
    assert difference_of(Placed(truth.array, None), truth) == "no place in the patient"


def test_a_verdict_holds_only_where_it_should() -> None:
    refused = Verdict(Outcome.REFUSED, "slice-missing")
    assert holds(KINDS["one-slice-missing"], refused)
    assert not holds(KINDS["one-slice-missing"], Verdict(Outcome.REFUSED, "colour"))
    assert not holds(KINDS["one-slice-missing"], Verdict(Outcome.SAME))
    assert not holds(KINDS["as-it-came"], refused)
    assert not holds(KINDS["utf-8"], Verdict(Outcome.ANOTHER, "values"))
    assert holds(KINDS["lossy"], Verdict(Outcome.ANOTHER, "values", ("lossy-compression",)))
    assert not holds(KINDS["lossy"], Verdict(Outcome.ANOTHER, "values"))
    assert not holds(KINDS["localizer"], Verdict(Outcome.ANOTHER, "values"))


# --- the data ---


def test_the_ct_as_published_is_read_like_the_uncompressed(abdominal_ct: list[Path]) -> None:
    found, notes = reader_of_limner("CT")(abdominal_ct)
    assert difference_of(found, clean_volume("CT")) == ""
    assert notes == ()


def test_the_mr_is_conformant(tmp_path: Path) -> None:
    path = tmp_path / "mr.dcm"
    path.write_bytes(encoded(clean_series("MR")[9]))
    require("dciodvfy")
    assert run_dciodvfy(path) == []


def test_results_are_small_and_plain() -> None:
    content = json.loads(results.PATH.read_text())
    assert set(content) == {"sdk_version", "sdk_date", "verdicts"}
    assert not any(secret in results.PATH.read_text() for secret in ("Limner^", "LIMNER-DEMO", "DEMO0001"))
