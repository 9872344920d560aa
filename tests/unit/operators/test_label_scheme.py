from typing import Any

import numpy as np
import pytest

from operators.label_scheme import LabelScheme, read_label_scheme


def scheme(labels: dict[str, Any], order: list[int] | None = None) -> LabelScheme:
    return read_label_scheme({"labels": labels} | ({} if order is None else {"regions_class_order": order}))


def test_plain_labels() -> None:
    found = scheme({"background": 0, "liver": 1, "spleen": 2})
    assert found == LabelScheme(values=(0, 1, 2), has_regions=False, foreground=(1, 2))
    assert found.heads == 3
    assert found.painted == {1, 2}


def test_regions() -> None:
    found = scheme({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edge": 3}, [1, 2, 3])
    assert found == LabelScheme(values=(1, 2, 3), has_regions=True, foreground=(1, 2, 3))
    assert found.heads == 3


def test_what_a_region_paints_may_repeat_and_be_background() -> None:
    found = scheme({"background": 0, "whole": [1, 2], "cavity": 2}, [1, 0])
    assert found.painted == {1}


@pytest.mark.parametrize("labels", [{"background": 0, "a": [1], "b": 2}, {"background": [0], "a": 1, "b": 2}])
def test_a_list_of_one_is_a_label(labels: dict[str, Any]) -> None:
    assert not scheme(labels).has_regions


def test_the_ignore_label_has_no_head() -> None:
    assert scheme({"background": 0, "a": 1, "ignore": 2}).heads == 2
    assert scheme({"background": 0, "a": [1, 2], "b": 2, "ignore": 3}, [1, 2]).foreground == (1, 2)


@pytest.mark.parametrize(("count", "kind"), [(254, np.uint8), (255, np.uint16)])
def test_bytes_of_a_voxel(count: int, kind: type[Any]) -> None:
    labels = {"background": 0, **{str(number): number for number in range(1, count + 1)}}
    assert scheme(labels).dtype == kind


@pytest.mark.parametrize(
    ("labels", "order", "said"),
    [
        ({"liver": 1}, None, "background"),
        ({"background": 1, "liver": 2}, None, "background"),
        ({"background": 0}, None, "at least one"),
        ({"background": 0, "liver": 2}, None, "without gaps"),
        ({"background": 0, "liver": 1, "ignore": 3}, None, "must be the highest, 2"),
        ({"background": 0, "whole": [1, 2], "core": 2}, None, "each of 2 regions"),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1], "each of 2 regions"),
    ],
)
def test_what_nnunet_would_not_train_is_refused(labels: dict[str, Any], order: list[int] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        scheme(labels, order)
