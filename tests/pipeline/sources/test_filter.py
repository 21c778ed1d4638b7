"""What is left out, and what is said about it."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.base.errors import InputError
from pipeline.base.images.pixels import decode
from pipeline.running.store import Run
from pipeline.sources.admission.ngrams import Benchmark, ngrams, texts
from pipeline.sources.admission.phash import Index, phash
from pipeline.sources.stage import ASIDE

HASHES = st.integers(0, 2**64 - 1)


def picture(seed: int, scale: int = 1, quality: int = 0) -> bytes:
    """A picture with shapes; ``scale`` and ``quality`` (JPEG) make another file of the same motif."""
    image = Image.new("RGB", (96, 96), (seed * 50 % 256, 90, 160))
    draw = ImageDraw.Draw(image)
    for n in range(6):
        x, y = (seed * 37 + n * 29) % 70, (seed * 53 + n * 41) % 70
        draw.ellipse((x, y, x + 12 + n * 4, y + 25), fill=((n * 45 + seed * 80) % 256, n * 30, 255 - n * 40))
    out = io.BytesIO()
    image.resize((96 * scale, 96 * scale)).save(out, "JPEG" if quality else "PNG", quality=quality or 75)
    return out.getvalue()


def put(folder: Path, files: dict[str, bytes], rows: list[dict[str, Any]]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dropped(run: Run) -> list[dict[str, Any]]:
    return [row for shard in run.shards(ASIDE) for row in run.read(ASIDE, shard).to_pylist()]


def reasons(run: Run) -> dict[str, int]:
    return Counter(row["reason"] for row in dropped(run))


# --------------------------------------------------------------------------------------------------------------- index


@given(st.lists(HASHES, min_size=1, max_size=8), HASHES, st.sets(st.integers(0, 63), max_size=17), st.integers(0, 15))
def test_the_index_finds_what_comparing_all_pairs_finds(
    hashes: list[int], other: int, flip: set[int], most: int
) -> None:
    index = Index(most)
    for value in hashes:
        index.add(value, str(value))
    near = hashes[0] ^ sum(1 << bit for bit in flip)
    for query in (near, other):
        pairs = sorted(((query ^ value).bit_count(), value) for value in hashes)
        near_pairs = [(bits, str(value)) for bits, value in pairs if bits <= most]
        assert index.nearest(query) == (near_pairs[0] if near_pairs else None)


def test_the_hash_survives_scaling_and_compression_and_tells_motifs_apart() -> None:
    a, same, other = (phash(decode(data)) for data in (picture(1), picture(1, 3, 60), picture(2)))
    assert (a ^ same).bit_count() <= 4 < 15 < (a ^ other).bit_count()


# ---------------------------------------------------------------------------------------------------------- duplicates


def test_rows_that_say_the_same_are_merged_and_told(tmp_path: Path, make: Any, run: Run) -> None:
    files = {"a.png": picture(1), "copy.png": picture(1)}
    prompts = [("a.png", "x"), ("copy.png", "x"), ("a.png", "y"), ("a.png", "x")]
    path = put(tmp_path, files, [{"images": [name], "prompt": text} for name, text in prompts])
    rows = make(kind="jsonl", path=path)
    assert [row["source"] for row in rows] == ["rows.jsonl:1", "rows.jsonl:3"]
    assert reasons(run) == {"duplicate_prompt": 2}
    assert {row["source"] for row in dropped(run)} == {"rows.jsonl:2", "rows.jsonl:4"}
    assert all(row["detail"] == "same as rows.jsonl:1" for row in dropped(run))
    assert [row["images"] for row in dropped(run) if row["source"].endswith("2")] == [[str(tmp_path / "copy.png")]]
    make(kind="jsonl", path=path, limit=1)
    assert reasons(run) == {}, "written anew with the source"


def test_rows_that_contradict_each_other_all_go(tmp_path: Path, make: Any, run: Run) -> None:
    answers = {
        "x": ("yes", None, "No", "yes"),
        "y": ("yes", "Yes.", None),
        "z": ("two", "no"),
        "w": (["yes", "no"], "no"),
    }
    rows = [
        {"images": ["a.png"], "prompt": prompt, "answer": answer} for prompt in answers for answer in answers[prompt]
    ]
    kept = make(kind="jsonl", path=put(tmp_path, {"a.png": picture(1)}, rows))
    assert {row["prompt"][0]["content"] for row in kept} == {"y", "z", "w"}
    assert reasons(run) == {"contradicting_answers": 4, "duplicate_prompt": 4}
    told = {row["detail"] for row in dropped(run) if row["reason"] == "contradicting_answers"}
    assert told == {"rows.jsonl:1 says yes and rows.jsonl:3 no"}


def rows_of(names: list[str], prompts: int = 3) -> list[dict[str, Any]]:
    return [{"images": [name], "prompt": f"{n}?"} for name in names for n in range(prompts)]


def test_exact_keeps_one_prompt_an_image_the_first_by_id(tmp_path: Path, make: Any, run: Run) -> None:
    files = {"a.png": picture(1), "copy.png": picture(1), "b.png": picture(2)}
    everything = make(kind="jsonl", path=put(tmp_path, files, rows_of(list(files))))
    kept = make(kind="jsonl", path=tmp_path / "rows.jsonl", dedup={"exact": True})
    first: dict[str, str] = {}
    for row in sorted(everything, key=lambda row: row["id"]):
        first.setdefault("b" if "b.png" in row["images"][0]["path"] else "a", row["id"])
    assert {row["id"] for row in kept} == set(first.values())
    assert reasons(run) == {"duplicate_image": 4, "duplicate_prompt": 3}
    assert all(row["detail"].removeprefix("same image as ") in first.values() for row in dropped(run)
               if row["reason"] == "duplicate_image")  # fmt: skip


def test_perceptual_drops_other_files_of_a_motif_with_all_their_prompts(tmp_path: Path, make: Any, run: Run) -> None:
    files = {"a.png": picture(1), "a.jpg": picture(1, 2, 70), "b.png": picture(2)}
    path = put(tmp_path, files, [*rows_of(list(files)), {"images": [], "prompt": "text only"}])
    kept = make(kind="jsonl", path=path, dedup={"perceptual": 4})
    names = [Path(row["images"][0]["path"]).name for row in kept if row["images"]]
    assert len(names) == 6 and len(set(names)) == 2 and "b.png" in names, "several prompts about one file stay"
    assert len(kept) == 7 and reasons(run) == {"near_duplicate_image": 3}
    shuffled = put(tmp_path, {}, [*rows_of(["b.png", "a.jpg", "a.png"])][::-1])
    again = make(kind="jsonl", path=shuffled, dedup={"perceptual": 4})
    assert {row["id"] for row in again} == {row["id"] for row in kept if row["images"]}, "whatever the order"


# ------------------------------------------------------------------------------------------------------- contamination

BENCHMARK = "How many red umbrellas stand beside the old stone harbour wall at noon on Sunday?"


def test_a_planted_benchmark_is_removed_and_told(tmp_path: Path, make: Any, run: Run) -> None:
    (tmp_path / "bench/images").mkdir(parents=True)
    (tmp_path / "bench/images/q.jpg").write_bytes(picture(3, 2, 80))
    (tmp_path / "bench/questions.jsonl").write_text(json.dumps({"question_id": 1, "text": BENCHMARK}) + "\n")
    (tmp_path / "bench/more.txt").write_text("a b c d e f g h i j k l m n\n")
    rows = [
        {"images": ["a.png"], "prompt": "Fine?", "facts": {"captions": ["Nothing of it."]}},
        {"images": ["c.png"], "prompt": "Fine?"},
        {"images": ["a.png"], "prompt": f"Please: {BENCHMARK.upper()}"},
        {"images": ["a.png"], "prompt": "1", "facts": {"captions": ["ok", f"they asked {BENCHMARK}"]}},
        {"images": ["b.png"], "prompt": "2", "answer": "A, b, c, d; e f g h i j k l m."},
        {"images": ["none.png"], "prompt": "A failed row stays to say why."},
    ]
    path = put(tmp_path, {"a.png": picture(1), "b.png": picture(2), "c.png": picture(3)}, rows)
    spec = {"images": [str(tmp_path / "bench/images")], "texts": [str(tmp_path / f"bench/{n}") for n in ("questions.jsonl", "more.txt")]}  # fmt: skip # noqa: E501
    kept = make(kind="jsonl", path=path, decontaminate=spec)
    assert [row["source"] for row in kept] == ["rows.jsonl:1", "rows.jsonl:6"]
    assert reasons(run) == {"contaminated_image": 1, "contaminated_text": 3}
    detail = {row["source"]: row["detail"] for row in dropped(run)}
    assert "q.jpg" in detail["rows.jsonl:2"] and "how many red umbrellas" in detail["rows.jsonl:3"]
    long = make(kind="jsonl", path=path, decontaminate={**spec, "ngram": 15, "images": []})
    assert len(long) == 4, "fewer words in common than asked for are no contamination"


def test_a_benchmark_that_cannot_be_compared_is_an_error(tmp_path: Path, make: Any) -> None:
    path = put(tmp_path, {"a.png": picture(1), "bad.png": b"x"}, rows_of(["a.png"]))
    for images, says in (("bad.png", "bad.png"), ("none*.png", "no file matches")):
        with pytest.raises(InputError, match=says):
            make(kind="jsonl", path=path, decontaminate={"images": [str(tmp_path / images)]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image found"):
        make(kind="jsonl", path=path, decontaminate={"images": [str(tmp_path / "empty")]})


def test_everything_dropped_says_so(tmp_path: Path, make: Any) -> None:
    path = put(tmp_path, {"a.png": picture(1)}, rows_of(["a.png"], 1))
    with pytest.raises(InputError, match="all 1 rows were dropped, see dropped/"):
        make(kind="jsonl", path=path, decontaminate={"images": [str(tmp_path / "a.png")]})


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8), st.integers(1, 3))
def test_shared_ngrams_are_those_of_both_texts(first: list[str], other: list[str], n: int) -> None:
    benchmark = Benchmark([], n)
    benchmark._known = set(ngrams(" ".join(first), n))
    runs = [{tuple(words[at : at + n]) for at in range(len(words) - n + 1)} for words in (first, other)]
    assert (benchmark.overlap([" ".join(other)]) is None) == (not runs[0] & runs[1])


def test_texts_of_a_benchmark_come_from_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"q": "one", "n": 3}, ["two"]]}))
    (tmp_path / "a.jsonl").write_text('{"q": "three"}\n\n"four"\n')
    assert [*texts(str(tmp_path / "a.json")), *texts(str(tmp_path / "a.jsonl"))] == ["one", "two", "three", "four"]
    (tmp_path / "a.jsonl").write_text("{}\n{")
    with pytest.raises(InputError, match="line 2"):
        list(texts(str(tmp_path / "a.jsonl")))
