"""A model is in the repository whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import ImportRefused
from app.exporters.publishing import check_free, publish, staging


def write_model(repository: Path, package: str, *others: str, text: str = "new") -> None:
    for name in (package, *others):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.onnx").write_text(text)
    networks = [
        {
            "model": name,
            "configuration": "3d_fullres",
            "folds": ["0"],
            "mirroring_axes": [],
            "tile_step_size": 0.5,
            "orientation": None,
            "previous_stage": others[0] if name == package and others else None,
            "label_values": None,
            "weights_sha256": "",
            "plans_sha256": "",
            "dataset_sha256": "",
        }
        for name in (*others, package)
    ]
    manifest = {"format": 1, "combination": "single", "networks": networks, "postprocessing": []}
    (repository / package / "manifest.json").write_text(json.dumps(manifest))


def weights(repository: Path) -> dict[str, str]:
    return {path.parent.parent.name: path.read_text() for path in sorted(repository.glob("*/1/model.onnx"))}


def refusal_of_publish(staged: Path, repository: Path, *models: str, replace: bool = False) -> str:
    with pytest.raises(ImportRefused) as caught:
        publish(staged, repository, models[0], models, replace=replace)
    return caught.value.code


def test_all_folders_are_moved(tmp_path: Path) -> None:
    repository, staged = tmp_path / "models", tmp_path / "staged"
    repository.mkdir()
    write_model(staged, "liver", "liver_3d_lowres")
    publish(staged, repository, "liver", ["liver_3d_lowres", "liver"], replace=False)
    assert weights(repository) == {"liver": "new", "liver_3d_lowres": "new"}


def test_a_name_that_is_taken_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    repository, staged = tmp_path / "models", tmp_path / "staged"
    write_model(repository, "liver", text="old")
    write_model(staged, "liver", "liver_3d_lowres")
    assert refusal_of_publish(staged, repository, "liver", "liver_3d_lowres") == "model-exists"
    assert weights(repository) == {"liver": "old"}


def test_a_replaced_package_goes_with_all_its_networks(tmp_path: Path) -> None:
    repository, staged = tmp_path / "models", tmp_path / "staged"
    write_model(repository, "liver", "liver_3d_lowres", text="old")
    write_model(staged, "liver", "liver_part2")
    publish(staged, repository, "liver", ["liver", "liver_part2"], replace=True)
    assert weights(repository) == {"liver": "new", "liver_part2": "new"}


def test_a_replaced_generalist_goes_with_its_decoder(tmp_path: Path) -> None:
    repository, staged = tmp_path / "models", tmp_path / "staged"
    write_model(repository, "sam", "sam_decoder", text="old")
    manifest = {"family": "sam", "networks": {part: {"model": f"sam{part}"} for part in ("", "_decoder")}}
    (repository / "sam" / "manifest.json").write_text(json.dumps(manifest))
    write_model(staged, "sam")
    publish(staged, repository, "sam", ["sam"], replace=True)
    assert weights(repository) == {"sam": "new"}


def test_a_network_of_another_package_is_not_replaced(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write_model(repository, "liver", text="old")
    write_model(repository, "liver_part2", text="another")
    with pytest.raises(ImportRefused, match="belongs to another model") as caught:
        check_free(repository, "liver", ["liver", "liver_part2"], replace=True)
    assert caught.value.code == "model-exists"


def test_what_can_not_be_moved_leaves_the_former_package_in_place(tmp_path: Path) -> None:
    repository, staged = tmp_path / "models", tmp_path / "staged"
    write_model(repository, "liver", "liver_3d_lowres", text="old")
    write_model(staged, "liver", "liver_part2")
    # a file that came in the way of a folder after everything was checked
    with pytest.MonkeyPatch.context() as patch:
        real = Path.rename

        def fail_at_the_package(self: Path, target: Path) -> Path:
            if self == staged / "liver":
                raise OSError(28, "No space left on device")
            return real(self, target)

        patch.setattr(Path, "rename", fail_at_the_package)
        assert refusal_of_publish(staged, repository, "liver", "liver_part2", replace=True) == "repository-unwritable"
    assert weights(repository) == {"liver": "old", "liver_3d_lowres": "old"}


def test_staging_lies_beside_the_repository_and_leaves_nothing(tmp_path: Path) -> None:
    repository = tmp_path / "deep" / "models"
    with staging(repository) as folder:
        assert folder.parent == repository.parent
        assert folder.stat().st_dev == repository.stat().st_dev
        (folder / "liver").mkdir()
    assert list(repository.parent.iterdir()) == [repository]


def test_what_a_killed_import_left_is_removed_and_a_running_ones_is_not(tmp_path: Path) -> None:
    dead = tmp_path / ".models-import-4194305_1-abcdefgh"
    (dead / "liver").mkdir(parents=True)
    with staging(tmp_path / "models") as running, staging(tmp_path / "models"):
        assert running.is_dir()
        assert not dead.exists()


def test_a_repository_on_a_file_system_of_its_own_is_said() -> None:
    with pytest.raises(ImportRefused, match="a file system of its own") as caught, staging(Path("/dev/shm")):
        pass
    assert caught.value.code == "repository-unwritable"
    assert list(Path("/dev").glob(".shm-import-*")) == []


def test_no_place_for_staging_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ImportRefused) as caught, staging(tmp_path / "file" / "models"):
        pass
    assert caught.value.code == "repository-unwritable"
