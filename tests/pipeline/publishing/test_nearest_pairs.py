from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publishing import nearest_pairs
from pipeline.publishing.nearest_pairs import nearest


def naive(vectors: Any, images: Any, answers: Any) -> list[int]:
    """One cosine after the other."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None]
    result = []
    for one in range(len(images)):
        best, place = -2.0, -1
        for other in range(len(images)):
            cosine = float(unit[images[one]] @ unit[images[other]])
            able = images[one] != images[other] and answers[one] != answers[other] and cosine <= 1 - 1e-9
            if able and cosine > best + 1e-9:
                best, place = cosine, other
        result.append(place)
    return result


#: Few directions, so that there are ties and images that look the same.
PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=25)
DIRECTIONS = st.lists(st.tuples(*[st.sampled_from([-1.0, 0.5, 2.0])] * 3), min_size=6, max_size=6)


@given(pairs=PAIRS, directions=DIRECTIONS, rows=st.integers(1, 7), columns=st.integers(1, 7))
def test_it_is_the_naive_way_whatever_the_blocks(pairs: Any, directions: Any, rows: int, columns: int) -> None:
    vectors = np.array(directions, np.float32)
    images, answers = np.array(pairs, np.int64).reshape(-1, 2).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_pairs, "_ROWS", rows)
        patch.setattr(nearest_pairs, "_COLUMNS", columns)
        assert nearest(vectors, images, answers).tolist() == naive(vectors, images, answers)


def test_the_length_of_a_vector_is_no_matter() -> None:
    vectors = np.array([[1, 0], [0.1, 0.01], [50, 50]], np.float32)
    assert nearest(vectors, np.array([0, 1, 2]), np.array([0, 1, 2])).tolist() == [1, 0, 1]


def test_an_image_that_the_model_cannot_tell_from_it_is_the_same_image() -> None:
    vectors = np.array([[1, 0], [2, 0], [0.6, 0.8]], np.float32)
    assert nearest(vectors, np.array([0, 1, 2]), np.array([0, 1, 2])).tolist() == [2, 2, 0]


def test_of_thousands_no_product_of_all_is_ever_held() -> None:
    import tracemalloc

    number = 12_000
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(number, 8)).astype(np.float32)
    images, answers = np.arange(number), rng.integers(0, 50, number)
    tracemalloc.start()
    found = nearest(vectors, images, answers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6 < 8 * number**2
    some = [0, 1023, 1024, 4095, 4096, 11_999]
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    for place in some:
        able = np.where(answers == answers[place], -2, unit @ unit[place])
        assert able[found[place]] == pytest.approx(able.max(), abs=1e-6)
