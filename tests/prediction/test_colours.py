import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seenet.core.labels import LabelSet, voc_colours
from seenet.data.camvid import CAMVID11
from seenet.prediction.colours import blend, colourize


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_colours_pixel_by_pixel_and_alike_for_every_integer_type(mask):
    drawn = colourize(mask, CAMVID11)
    for at, value in np.ndenumerate(mask):
        colour = CAMVID11.colours[value] if value < 11 else (255, 255, 255) if value == 11 else (0, 0, 0)
        assert tuple(drawn[at]) == colour
    for dtype in (np.uint16, np.int32, np.int64):
        assert np.array_equal(colourize(mask.astype(dtype), CAMVID11), drawn)


def test_ids_over_a_byte_and_negative_ignore():
    labels = LabelSet("many", tuple(map(str, range(300))), voc_colours(300), ignore=-1)
    drawn = colourize(np.array([[299, -1, 300]]), labels)
    assert tuple(drawn[0, 0]) == labels.colours[299]
    assert tuple(drawn[0, 1]) == (255, 255, 255)
    assert tuple(drawn[0, 2]) == (0, 0, 0)


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_blend_is_the_weighted_mean_and_shows_the_picture_where_ignored(alpha, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    mask = rng.integers(0, 12, (5, 7)).astype(np.uint8)
    drawn = blend(image, mask, CAMVID11, alpha)
    expected = image * (1 - alpha) + colourize(mask, CAMVID11) * alpha
    assert np.abs(drawn - expected)[mask != 11].max(initial=0) < 2.5
    assert np.array_equal(drawn[mask == 11], image[mask == 11])
