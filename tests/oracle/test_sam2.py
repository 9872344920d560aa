"""SAM 2 by four graphs and numpy answers what the reference implementation answers, on images and through slices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from hydra.utils import instantiate

from app.errors import ImportRefused
from app.exporters.sam2.exporting import export_network
from app.exporters.sam2.gate import judge_graphs
from app.exporters.sam2.networks import build_network
from operators.sam.choosing import single
from operators.sam.memory_contract import read_memory_contract
from operators.sam.package import DECODER
from tests.oracle.sam2_reference import (
    TINY_ENCODER,
    Array,
    Ours,
    draw_frames,
    follow_by_reference,
    frames_of,
    image_predictor,
    let_objects_be,
    shown,
    untrained,
    variant,
)

ROWS, COLUMNS = 90, 120
NEAR = 1e-4
BOX = {"box": [40, 20, 80, 60]}
POINT = {"points": [[60, 40]], "labels": [1]}
POINTS_AND_BOX = {"box": [40, 20, 80, 60], "points": [[60, 40], [5, 5]], "labels": [1, 0]}
MASK = {"mask": np.pad(np.ones((30, 41), bool), ((20, 40), (40, 39)))}
CONFIGURATIONS = {
    "sam2_hiera_tiny": "sam2/sam2_hiera_t",
    "sam2_hiera_small": "sam2/sam2_hiera_s",
    "sam2_hiera_base_plus": "sam2/sam2_hiera_b+",
    "sam2_hiera_large": "sam2/sam2_hiera_l",
    "sam2.1_hiera_t": "sam2.1/sam2.1_hiera_t",
    "sam2.1_hiera_s": "sam2.1/sam2.1_hiera_s",
    "sam2.1_hiera_b+": "sam2.1/sam2.1_hiera_b+",
    "sam2.1_hiera_l": "sam2.1/sam2.1_hiera_l",
    "medsam2": "sam2.1/sam2.1_hiera_t",
}
OF_ITS_OWN = {
    "medsam2": [
        "model.image_size=512",
        "model.memory_attention.layer.self_attention.feat_sizes=[32,32]",
        "model.memory_attention.layer.cross_attention.feat_sizes=[32,32]",
    ]
}
"""What MedSAM2's ``sam2.1_hiera_t512.yaml`` has otherwise than the file of the reference that it was made from."""
FOR_INFERENCE = [
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_variants_file_builds_what_the_references_configuration_builds(name: str) -> None:
    overrides = [*FOR_INFERENCE, *OF_ITS_OWN.get(name, [])]
    configuration = compose(config_name=f"configs/{CONFIGURATIONS[name]}.yaml", overrides=overrides)
    theirs = instantiate(configuration.model, _recursive_=True).eval()
    ours = build_network(variant(name)["architecture"])

    def said(network: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        settings = {key: value for key, value in vars(network).items() if isinstance(value, int | float | str)}
        return str(network), settings, {key: value.shape for key, value in network.state_dict().items()}

    assert said(ours) == said(theirs)
    contract = variant(name)["contract"]
    assert contract["memory"]["memories"] == theirs.num_maskmem
    assert contract["memory"]["pointers"] == theirs.max_obj_ptrs_in_encoder
    assert contract["memory"]["several"] == [theirs.multimask_min_pt_num, theirs.multimask_max_pt_num]
    assert contract["logits"]["size"] * 4 == contract["image"]["size"] == theirs.image_size


@pytest.fixture(params=["sam2.1_hiera_t", "sam2_hiera_tiny"])
def content(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Both generations, with an encoder that is quick."""
    return variant(request.param, TINY_ENCODER)


def test_an_export_is_judged_part_by_part(content: dict[str, Any], tmp_path: Path) -> None:
    network = untrained(content["architecture"], 3)
    contract = {**content["contract"], "licence": "none"}

    def target(part: str) -> Path:
        return tmp_path / part / "model.onnx"

    exported = export_network(content["architecture"], contract, network.state_dict(), "a test", target)
    assert {part: len(figures) for part, figures in exported.figures.items()} == {
        "encoder": 1, "decoder": 4, "memory_encoder": 4, "memory_attention": 3,
    }  # fmt: skip
    errors = [one["relative_error"] for figures in exported.figures.values() for one in figures]
    assert max(errors) < NEAR
    assert read_memory_contract(exported.contract["memory"]).mask_prompt.no_memory.shape == (256,)

    with torch.no_grad():
        network.maskmem_tpos_enc.copy_(network.maskmem_tpos_enc.roll(1, 0))  # each memory is taken for its neighbour
    ours = Ours.of(network, content, tmp_path / "other")
    graphs = {part: target(part) for part in exported.signatures}
    with pytest.raises(ImportRefused, match="memory_attention does not compute what was trained") as caught:
        judge_graphs(network, ours.contract, graphs)
    assert caught.value.code == "parity-refused"


def test_weights_of_another_variant_are_refused(tmp_path: Path) -> None:
    content = variant("sam2.1_hiera_t", TINY_ENCODER)
    older = untrained(variant("sam2_hiera_tiny", TINY_ENCODER)["architecture"], 3)
    with pytest.raises(ImportRefused, match="no_obj_embed_spatial") as caught:
        export_network(content["architecture"], content["contract"], older.state_dict(), "a test", tmp_path.joinpath)
    assert caught.value.code == "architecture-unsupported"


Make = Callable[[str, int, float], tuple[Any, Ours]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """An untrained network of a variant with a quick encoder, and its graphs; each is made once."""

    @functools.cache
    def made(name: str, seed: int, presence: float) -> tuple[Any, Ours]:
        content = variant(name, TINY_ENCODER)
        network = untrained(content["architecture"], seed)
        let_objects_be(network, presence)
        return network, Ours.of(network, content, tmp_path_factory.mktemp("graphs"))

    return made


@pytest.mark.parametrize("prompt", [BOX, POINT, POINTS_AND_BOX], ids=["box", "point", "points and box"])
@pytest.mark.parametrize("seed", [0, 4])
def test_an_image_is_segmented_as_by_the_references_predictor(prompt: Mapping[str, Any], seed: int, make: Make) -> None:
    network, ours = make("sam2.1_hiera_t", seed, 10.0)
    _check_image(network, ours, prompt)


def _check_image(network: Any, ours: Ours, prompt: Mapping[str, Any]) -> None:
    """One prompt, refined once, as single mask and as three."""
    predictor = image_predictor(network)
    image = np.random.default_rng(1).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    predictor.set_image(image)
    features = ours.encode(predictor._transforms(image).numpy())
    points: Any = shown(prompt, ROWS, COLUMNS, network.image_size)
    side = network.image_size // 4
    refined = np.random.default_rng(2).normal(0, 5, (1, side, side)).astype(np.float32)
    for mask in (None, refined):
        answer = ours.infer(
            DECODER,
            {
                **features,
                "point_coords": np.concatenate([points.coordinates, np.zeros((1, 2), np.float32)])[None],
                "point_labels": np.append(points.labels, np.float32(-1))[None],
                "mask_input": (np.zeros((1, side, side), np.float32) if mask is None else mask)[None],
                "has_mask_input": np.full(1, mask is not None, np.float32),
            },
        )
        masks, qualities = answer["masks"][0], answer["iou_predictions"][0]
        assert ours.contract.memory is not None
        one = single(masks, qualities, read_memory_contract(ours.contract.memory).stability)
        for several, chosen in ((True, [1, 2, 3]), (False, [one])):
            logits, expected_qualities, _ = predictor.predict(
                point_coords=prompt.get("points"),
                point_labels=prompt.get("labels"),
                box=prompt.get("box"),
                mask_input=mask,
                multimask_output=several,
                return_logits=True,
            )
            _check_near(_on_image(masks[chosen]), logits)
            np.testing.assert_allclose(qualities[chosen], expected_qualities, atol=NEAR)


def _on_image(masks: Array) -> Array:
    large = torch.nn.functional.interpolate(
        torch.from_numpy(masks)[None], (ROWS, COLUMNS), mode="bilinear", align_corners=False
    )
    values: Array = large[0].numpy()
    return values


def _check_near(found: Array, expected: Array) -> None:
    assert np.abs(found - expected).max() <= NEAR * np.abs(expected).max()
    # logits that are zero but for rounding may fall on either side: not one pixel in ten thousand
    assert np.count_nonzero((found > 0) != (expected > 0)) <= expected.size / 10_000


OBJECTS: dict[str, dict[int, Mapping[str, Any]]] = {
    "a box": {9: BOX},
    "a mask": {9: MASK},
    "on three slices": {4: POINTS_AND_BOX, 12: POINT, 7: MASK},
    "on the first": {0: BOX},
    "on the last": {19: POINT},
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of them, so that the oldest pointers are forgotten."""
    folder = tmp_path_factory.mktemp("series") / "frames"
    draw_frames(folder, 20, ROWS, COLUMNS, 1)
    return folder


@pytest.mark.parametrize("name", ["sam2.1_hiera_t", "sam2_hiera_tiny"])
def test_objects_are_followed_as_by_the_references_predictor(name: str, make: Make, frames: Path) -> None:
    network, ours = make(name, 0, 10.0)
    _check_followed(network, ours, frames, list(OBJECTS.values()), never_absent=True)


@pytest.mark.parametrize("name", ["sam2.1_hiera_t", "sam2_hiera_tiny"])
def test_objects_that_come_and_go_are_followed_as_by_the_references_predictor(
    name: str, make: Make, frames: Path
) -> None:
    network, _ = make(name, 0, 10.0)
    usual = [score for _, score in follow_by_reference(network, frames, OBJECTS["a box"]).values()]
    network, ours = make(name, 0, 10.0 - float(np.median(usual)))
    objects = [OBJECTS["a box"], OBJECTS["on three slices"]]
    _check_followed(network, ours, frames, objects, never_absent=False)


def _check_followed(
    network: Any, ours: Ours, folder: Path, objects: Sequence[Mapping[int, Mapping[str, Any]]], *, never_absent: bool
) -> None:
    """Several objects at once, each as the reference follows it alone."""
    prompts = [
        {index: shown(one, ROWS, COLUMNS, network.image_size) for index, one in prompt.items()} for prompt in objects
    ]
    answers = ours.follow(frames_of(folder, network.image_size), prompts)
    found = [(index, number, one) for index, answer in answers for number, one in answer.items()]
    absent = 0
    for number, prompt in enumerate(objects):
        expected = follow_by_reference(network, folder, prompt)
        assert sorted(index for index, own, _ in found if own == number) == sorted(expected)
        for index, own, followed in found:
            if own == number:
                logits, score = expected[index]
                assert followed.presence == pytest.approx(score, abs=NEAR * 10)
                _check_near(followed.logits, logits)
                _check_near(_on_image(followed.logits[None]), _on_image(logits[None]))
                absent += followed.presence <= 0
    assert (absent == 0) == never_absent


@pytest.mark.parametrize(("key", "value"), [("memories", 6), ("pointers", 15), ("several", [3, 3])])
def test_the_comparison_sees_what_is_remembered_otherwise(key: str, value: Any, make: Make, frames: Path) -> None:
    network, ours = make("sam2.1_hiera_t", 0, 10.0)
    changed = {**dict(ours.contract.memory or {}), key: value}
    other = dataclasses.replace(ours, contract=dataclasses.replace(ours.contract, memory=changed))
    with pytest.raises(AssertionError):
        _check_followed(network, other, frames, [OBJECTS["on the first"]], never_absent=True)


def test_hiera_tiny_is_served_as_the_reference_computes_it(tmp_path: Path) -> None:
    """The encoder of the smallest published variant, on an image whose attention goes through several pieces."""
    encoder = {**variant("sam2.1_hiera_t")["architecture"]["encoder"], "size": 320}
    content = variant("sam2.1_hiera_t", encoder)
    network = untrained(content["architecture"], 0)
    let_objects_be(network, 10.0)
    ours = Ours.of(network, content, tmp_path / "graphs")
    for prompt in (BOX, POINT):
        _check_image(network, ours, prompt)
    draw_frames(tmp_path / "frames", 12, ROWS, COLUMNS, 1)
    _check_followed(network, ours, tmp_path / "frames", [{6: BOX}], never_absent=True)
