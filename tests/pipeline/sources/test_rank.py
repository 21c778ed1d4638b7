"""Which images of a text are kept, and that ranking makes the share of faithful ones larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.base.tables import IMAGES, OK, PROMPTS, error_status
from pipeline.sources.imagine.config import ImagineSource, Rank
from pipeline.sources.imagine.rank import BELOW, NO_IMAGE, NO_SCORE, OUTRANKED, OpenRanker, RankStage, choose, gain
from pipeline.sources.imagine.stage import ImagineStage, texts

scores = st.lists(st.none() | st.floats(-1, 1) | st.just(float("nan")), max_size=6)


@given(scores, st.integers(1, 4), st.none() | st.floats(-1, 1))
def test_the_best_above_the_threshold_are_kept_and_all_others_have_a_reason(
    values: list[float | None], keep: int, threshold: float | None
) -> None:
    kept, reasons = choose(values, keep, threshold)
    good = [v for v in values if v is not None and v == v and (threshold is None or v >= threshold)]
    assert [values[at] for at in kept] == sorted(good, reverse=True)[:keep]
    assert {at for at, why in enumerate(reasons) if why is None} == set(kept) and len(reasons) == len(values)
    for at, why in enumerate(reasons):
        value = values[at]
        if why == NO_SCORE:
            assert value is None or value != value
        elif why == BELOW:
            assert value is not None and threshold is not None and value < threshold
        elif why == OUTRANKED:
            assert value is not None and len(kept) == keep
            assert all((values[k] or 0.0) >= value for k in kept)


def test_of_equal_scores_the_earlier_goes_first() -> None:
    assert choose([0.1, 0.4, 0.4], 1)[0] == [1]


class Lengths:
    """The longer the file, the better; a file of 13 bytes breaks it."""

    version = "1"

    def score_images(self, rows: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[float]]:
        if any(len(image) == 13 for _, images in rows for image in images):
            raise ValueError("cannot be decoded")
        return [[float(len(image)) for image in images] for _, images in rows]


def images(id: str, *sizes: int | None, **changes: Any) -> dict[str, Any]:
    made = [
        {"bytes": None if size is None else b"x" * size, "seed": 1, "guidance": 5.0, "error_type": size and "broken"}
        for size in sizes
    ]
    return {"id": id, "text": "a dog", "images": made, **OK, **changes}


def rank(*rows: dict[str, Any], **spec: Any) -> list[dict[str, Any]]:
    stage = RankStage(Rank(**spec))
    made: list[dict[str, Any]] = stage.process(
        Lengths(), {"imagine": pa.Table.from_pylist(list(rows), schema=IMAGES)}
    ).to_pylist()
    return made


def test_rejected_images_stay_with_their_scores_and_reasons() -> None:
    (row,) = rank(images("a", 5, None, 9, 2), threshold=4.0)
    assert (row["scores"], row["kept"]) == ([5.0, None, 9.0, 2.0], [2])
    assert row["reasons"] == [OUTRANKED, NO_IMAGE, None, BELOW] and row["faithful"] == [None] * 4


def test_a_text_none_of_whose_images_is_good_enough_has_none() -> None:
    (row,) = rank(images("a", 5, 6), threshold=7.0)
    assert row["kept"] == [] and row["status"] == "ok" and row["reasons"] == [BELOW, BELOW]


class Short(Lengths):
    """Reads three characters of a text."""

    def cut(self, texts: Sequence[str]) -> list[bool | None]:
        return [len(text) > 3 if text else None for text in texts]


def test_texts_that_were_cut_are_counted() -> None:
    stage = RankStage(Rank())
    given = [images("a", 5), images("b", 6, text="sun"), images("c", None, 13), images("d", 7, text="a boat")]
    table = stage.process(Short(), {"imagine": pa.Table.from_pylist(given, schema=IMAGES)})
    assert table["cut"].to_pylist() == [True, False, None, True]
    counts = stage.extras(table)
    assert (counts["texts"], counts["cut"]) == (3, 2)


def test_a_row_that_breaks_the_scorer_fails_alone_and_failed_ones_stay_failed() -> None:
    lost = {**images("c"), "images": None, **error_status("not_in_grammar", "why")}
    rows = rank(images("a", 5), images("b", 13), lost)
    assert [row["error_type"] for row in rows] == [None, "ValueError", "not_in_grammar"]
    assert rows[0]["kept"] == [0] and rows[1]["kept"] is None


def test_the_gain_is_unknown_where_nobody_knows_what_was_drawn() -> None:
    stage = RankStage(Rank())
    table = stage.process(Lengths(), {"imagine": pa.Table.from_pylist([images("a", 5, None)], schema=IMAGES)})
    assert stage.extras(table) == {"images": 1, "kept": 1} and gain(stage.extras(table)) is None


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"source\.rank.*ViT-none"):
        RankStage(Rank(model="ViT-none")).options()


def test_ranking_by_the_built_in_clip_raises_the_share_of_faithful_images() -> None:
    spec = ImagineSource.model_validate({"kind": "imagine", "texts": {"scenes": 40}})
    rows = [
        {"id": f"{at}", "prompt": text.prompt, "images": [], "source": text.source, **OK}
        for at, text in enumerate(texts(spec.texts, 0))
    ]
    table = pa.Table.from_pylist(rows, schema=PROMPTS)
    drawn = ImagineStage(spec, 0).process(None, {"texts": table}).cast(IMAGES)
    stage = RankStage(spec.rank)
    extras = stage.extras(stage.process(OpenRanker(spec.rank)(), {"imagine": drawn}))
    assert (extras["images"], extras["kept"]) == (160, 40)
    shares = gain(extras)
    assert shares is not None
    # A pick at random leaves the share as it is, give or take 0.07.
    assert shares["faithful_before"] + 0.2 < shares["faithful_after"]
