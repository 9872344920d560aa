"""Label maps that hypothesis draws: of many small parts, which touch by faces, edges, corners or not at all."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from operators.label_maps import LabelMap

VALUES = (1, 2, 3, 255)
"""Label values that a drawn map may hold beside 0; one of uint16 may hold `HIGH_VALUE` too."""
HIGH_VALUE = 700


@st.composite
def speckled_labels(draw: st.DrawFn) -> LabelMap:
    """Voxels of up to five labels, independent of each other, on a background that is most of the map or little of it.

    Axes slice, row, column, each of 1 to 9 voxels; uint8 or uint16.
    """
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    kind, values = draw(st.sampled_from([(np.uint8, VALUES), (np.uint16, (*VALUES, HIGH_VALUE))]))
    share = draw(st.sampled_from([0.0, 0.03, 0.1, 0.2, 0.4, 0.8]))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    painted = chance.random(shape) < share
    labels: LabelMap = np.where(painted, chance.choice(values, shape), 0).astype(kind)
    return labels


def label_choices() -> st.SearchStrategy[list[int]]:
    """Some of the label values, and one that no map holds."""
    return st.lists(st.sampled_from([*VALUES, HIGH_VALUE, 9]), min_size=1, unique=True)
