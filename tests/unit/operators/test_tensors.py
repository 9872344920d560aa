import numpy as np

from operators.tensors import TensorSpec


def test_what_a_tensor_admits() -> None:
    spec = TensorSpec(np.dtype(np.float32), (-1, 2))
    assert spec.admits(np.dtype(np.float32), (7, 2))
    assert not spec.admits(np.dtype(np.float64), (7, 2))
    assert not spec.admits(np.dtype(np.float32), (7, 3))
    assert not spec.admits(np.dtype(np.float32), (7, 2, 1))
    assert str(spec) == "float32 [-1, 2]"
