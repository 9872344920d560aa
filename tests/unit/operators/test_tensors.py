import numpy as np

from operators.tensors import TensorSpec


def test_what_a_tensor_admits() -> None:
    spec = TensorSpec(np.dtype(np.float32), (-1, 2))
    assert spec.admits(np.dtype(np.float32), (7, 2))
    assert not spec.admits(np.dtype(np.float64), (7, 2))
    assert not spec.admits(np.dtype(np.float32), (7, 3))
    assert not spec.admits(np.dtype(np.float32), (7, 2, 1))
    assert str(spec) == "float32 [-1, 2]"


def test_a_spec_of_one_batch() -> None:
    spec = TensorSpec(np.dtype(np.float32), (-1, 2))
    assert spec.is_batched
    assert spec.of_batch(3) == TensorSpec(np.dtype(np.float32), (3, 2))
    assert spec.of_batch(3).size == 24
    fixed = TensorSpec(np.dtype(np.float32), (4,))
    assert not fixed.is_batched
    assert fixed.of_batch(3) == fixed
