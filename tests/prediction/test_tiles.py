"""The side of tiles, and the memory that they take."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seenet.prediction.tiles import RESERVED, Tiling


@given(
    height=st.integers(1, 20_000),
    width=st.integers(1, 20_000),
    seen=st.floats(10, 2000),
    kept=st.floats(1, 2000),
    margin=st.integers(0, 300),
    memory=st.floats(0.01, 8),
)
@settings(deadline=None)
def test_tiles_stay_within_the_budget(
    height: int, width: int, seen: float, kept: float, margin: int, memory: float
) -> None:
    tiling = Tiling("auto", margin, memory)
    side = tiling.side((height, width), seen, kept)
    assert (side is None) == (height * width * seen <= memory * 1e9)
    if side is None:
        return
    # Two successive rows of tiles are in memory at once.
    bands = [span.last - span.first for span in tiling.spans(height, side)]
    rows = max(map(sum, pairwise(bands)), default=bands[0])
    total = side**2 * seen + rows * width * kept
    assert side == tiling.smallest or total <= (1 - RESERVED) * memory * 1e9


@pytest.mark.parametrize(
    ("memory", "side"),
    [
        (1e-6, 576),
        # 704^2 x 400 + 640 rows x 10,000 x 2.75 bytes are 0.216 gigabytes of 0.219.
        (0.25, 704),
        # 2016^2 x 400 + 3264 rows x 10,000 x 2.75 bytes are 1.72 gigabytes of 1.75.
        (2.0, 2016),
        (40.0, None),
    ],
)
def test_the_side_of_a_tile(memory: float, side: int | None) -> None:
    assert Tiling("auto", 256, memory).side((10_000, 10_000), 400.0, 2.75) == side
