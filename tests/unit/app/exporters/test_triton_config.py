"""What is written for Triton is what Triton's own protobuf reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from app.exporters.sam.signatures import Shapes
from app.exporters.triton_config import (
    Served,
    cpu_config,
    engine_config,
    gpu_config,
    openvino_config,
    unbatched_config,
    unbatched_gpu_config,
    unbatched_openvino_config,
)

SERVED = Served("liver", (2, 16, 32, 48), (3, 16, 32, 48), max_batch_size=4, threads=2)


def read(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("write", [cpu_config, gpu_config, openvino_config, engine_config])
def test_every_configuration_says_what_goes_in_and_out(write: Callable[[Served], str]) -> None:
    config = read(write(SERVED))
    assert config.name == "liver"
    assert config.max_batch_size == 4
    assert [(one.name, list(one.dims)) for one in config.input] == [("image", [2, 16, 32, 48])]
    assert [(one.name, list(one.dims)) for one in config.output] == [("logits", [3, 16, 32, 48])]
    assert {one.data_type for one in (*config.input, *config.output)} == {model_config_pb2.TYPE_FP32}
    assert config.version_policy.latest.num_versions == 1
    assert config.instance_group[0].count == 1


def test_the_default_runs_on_the_cpu() -> None:
    config = read(cpu_config(SERVED))
    assert config.backend == "onnxruntime"
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator


def test_openvino_is_the_default_with_an_accelerator() -> None:
    config = read(openvino_config(SERVED))
    (accelerator,) = config.optimization.execution_accelerators.cpu_execution_accelerator
    assert accelerator.name == "openvino"
    config.ClearField("optimization")
    assert config == read(cpu_config(SERVED))


def test_the_gpu_has_tensorrt_with_profiles_for_every_batch() -> None:
    config = read(gpu_config(SERVED))
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["trt_profile_min_shapes"] == "image:1x2x16x32x48"
    assert accelerator.parameters["trt_profile_max_shapes"] == "image:4x2x16x32x48"
    assert accelerator.parameters["trt_engine_cache_enable"] == "1"
    assert accelerator.parameters["precision_mode"] == "FP32"
    (warm_up,) = config.model_warmup
    assert list(warm_up.inputs["image"].dims) == [2, 16, 32, 48]


def test_an_engine_is_served_by_its_file() -> None:
    config = read(engine_config(SERVED))
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")


def test_a_decoder_takes_any_number_of_prompts_and_points() -> None:
    signature = Shapes(image=256, width=256, grid=64, mask=256, masks=4).decoder
    config = read(unbatched_config("sam_decoder", signature, 2))
    assert (config.name, config.backend, config.max_batch_size) == ("sam_decoder", "onnxruntime", 0)
    assert [(one.name, list(one.dims)) for one in config.input] == [
        ("image_embeddings", [1, 256, 64, 64]),
        ("point_coords", [-1, -1, 2]),
        ("point_labels", [-1, -1]),
        ("mask_input", [-1, 1, 256, 256]),
        ("has_mask_input", [-1]),
    ]
    assert [(one.name, list(one.dims)) for one in config.output] == [
        ("masks", [-1, 4, 256, 256]),
        ("iou_predictions", [-1, 4]),
    ]
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert config.parameters["enable_mem_pattern"].string_value == "0"
    assert config.parameters["enable_mem_reuse"].string_value == "0"
    other = read(unbatched_openvino_config("sam_decoder", signature, 2))
    (accelerator,) = other.optimization.execution_accelerators.cpu_execution_accelerator
    assert accelerator.name == "openvino"
    other.ClearField("optimization")
    assert other == config
    gpu = read(unbatched_gpu_config("sam_decoder", signature))
    assert gpu.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert (gpu.input, gpu.output, gpu.max_batch_size) == (config.input, config.output, 0)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_name_can_not_write_a_configuration_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="can't stand"):
        cpu_config(Served(name, (1, 2, 2), (1, 2, 2), 1, 1))
