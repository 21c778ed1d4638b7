"""``python -m pipeline.blindness`` on datasets as others write them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
from picture_kit import file, noise
from PIL import Image
from typer.testing import CliRunner

from pipeline.blindness.__main__ import app
from pipeline.blindness.measure_blindness import measure
from pipeline.blindness.pair_texts import PairTexts, writers
from training.formats.unseen_pairs import UnseenPairs

runner = CliRunner()
WORDS = ["sun", "moon", "cat", "boat", "anchor", "horse", "cup", "tree"]
CHANCE = random.Random(0)
TEXTS = [
    (
        f"{i // 2}.jpg",
        f"What is in picture {i % 7}?",
        f"I see {CHANCE.choice(WORDS)}" if i % 3 else CHANCE.choice(WORDS),
        CHANCE.choice(WORDS),
    )
    for i in range(80)
]
EXPECTED = measure([PairTexts(*texts) for texts in TEXTS])


def turn(role: str, text: str, keys: tuple[str, str] = ("role", "content")) -> dict[str, str]:
    return dict(zip(keys, (role, text), strict=True))


def llava(prompt: str, answer: str) -> list[dict[str, str]]:
    keys = ("from", "value")
    return [turn("human", f"<image>\n{prompt}", keys), turn("gpt", answer, keys)]


SCHEMAS: dict[str, Any] = {
    "trl": lambda image, prompt, chosen, rejected: {
        "images": [image],
        "prompt": [turn("user", prompt)],
        "chosen": [turn("assistant", chosen)],
        "rejected": [turn("assistant", rejected)],
    },
    "rlaif_v": lambda image, prompt, chosen, rejected: {
        "image": image,
        "question": prompt,
        "chosen": chosen,
        "rejected": rejected,
    },
    "mdpo": lambda image, prompt, chosen, rejected: {
        "img_path": image,
        "prompt": f"USER: <image>\n{prompt} ASSISTANT:",
        "chosen": chosen,
        "rejected": rejected,
    },
    "llamafactory": lambda image, prompt, chosen, rejected: {
        "images": [image],
        "conversations": llava(prompt, "")[:1],
        "chosen": turn("gpt", chosen, ("from", "value")),
        "rejected": turn("gpt", rejected, ("from", "value")),
    },
    "swift": lambda image, prompt, chosen, rejected: {
        "images": [image],
        "messages": [turn("user", f"<image>{prompt}"), turn("assistant", chosen)],
        "rejected_response": rejected,
    },
    "pds_dpo": lambda image, prompt, chosen, rejected: {
        "image": image,
        "conversations": llava(prompt, chosen),
        "rejected_conversations": llava(prompt, rejected),
    },
}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "data.json") -> str:
    path = folder / name
    path.write_text(json.dumps(rows, ensure_ascii=False))
    return str(path)


def ask(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_same_pairs_give_the_same_number_in_every_schema_without_their_images(schema: str, tmp_path: Path) -> None:
    path = written(tmp_path, [SCHEMAS[schema](*texts) for texts in TEXTS])
    pairs, total = UnseenPairs(path).drawn()
    assert measure(pairs, total) == EXPECTED and EXPECTED.value is not None and EXPECTED.images == 40
    assert f"| all | 80 | {EXPECTED.value:.3f} |" in ask(path)


def test_encoded_images_group_pairs_as_paths_do(tmp_path: Path) -> None:
    encoded = {name: {"bytes": name.encode(), "path": None} for name, *_ in TEXTS}
    rows = [SCHEMAS["trl"](encoded[name], *texts) for name, *texts in TEXTS]
    features = datasets.Dataset.from_list(rows).features | {"images": datasets.List(datasets.Image(decode=False))}
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).save_to_disk(tmp_path / "data")
    assert measure(*UnseenPairs(str(tmp_path / "data")).drawn()) == EXPECTED


def test_the_last_question_and_all_turns_of_an_answer_are_read(tmp_path: Path) -> None:
    earlier = [turn("user", "<image>Hello"), turn("assistant", "Hi")]
    rows = [
        {
            "images": [image],
            "prompt": [*earlier, turn("user", prompt)],
            "chosen": [turn("assistant", "Well."), turn("user", "Yes?"), turn("assistant", chosen)],
            "rejected": [turn("assistant", rejected)],
        }
        for image, prompt, chosen, rejected in TEXTS
    ]
    pairs, _ = UnseenPairs(written(tmp_path, rows)).drawn()
    assert {pair.prompt for pair in pairs} == {texts[1] for texts in TEXTS}
    assert {pair.chosen for pair in pairs} == {f"Well.\nYes?\n{texts[2]}" for texts in TEXTS}


def test_pairs_are_told_apart_by_what_the_dataset_says_of_them(tmp_path: Path) -> None:
    rows = [
        {**SCHEMAS["rlaif_v"](*texts), "origin_dataset": "coco" if i % 2 else None, "chosen_model": "a",
         "rejected_model": "b" if i % 4 else None, "level": i % 2, "tags": ["x"]}
        for i, texts in enumerate(TEXTS)
    ]  # fmt: skip
    path = written(tmp_path, rows)
    pairs, _ = UnseenPairs(path).drawn()
    assert {mark for pair in pairs for mark in pair.marks.items()} == {
        ("origin_dataset", "coco"),
        ("written by", writers("a", "b")),
        ("written by", writers("a", None)),
    }
    assert "| level: 1 | 40 |" in ask(path, "--by", "level") and "written by" not in ask(path, "--by", "level")
    wrong = runner.invoke(app, [path, "--by", "levle"])
    assert wrong.exit_code == 2 and "has no column levle; did you mean level?" in wrong.output
    assert "column tags holds no texts" in runner.invoke(app, [path, "--by", "tags"]).output


def test_rows_that_say_the_same_are_drawn_one_by_one(tmp_path: Path) -> None:
    """Or of a hundred questions about a dog all would be drawn, or none."""
    rows = [SCHEMAS["rlaif_v"](f"{i}.jpg", f"Is it {i % 2}?", "Yes", "No") for i in range(200)]
    pairs, total = UnseenPairs(written(tmp_path, rows)).drawn(100)
    assert total == 200 and len(pairs) == 100
    assert 30 < sum(pair.prompt == "Is it 1?" for pair in pairs) < 70


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no rows"),
        ([{**SCHEMAS["rlaif_v"](*TEXTS[0]), "chosen": None}], "row 0"),
        ([{"text": "a"}], "missing column"),
    ],
)
def test_bad_data_is_one_line(rows: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    result = runner.invoke(app, [written(tmp_path, rows)])
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output
    assert runner.invoke(app, [str(tmp_path / "none.json")]).exit_code == 2


def test_one_row_is_unknown(tmp_path: Path) -> None:
    assert "not known (1 images; 20 are needed)" in ask(written(tmp_path, [SCHEMAS["rlaif_v"](*TEXTS[0])]))


def test_a_model_reads_the_pairs_and_what_it_said_is_kept(tmp_path: Path) -> None:
    for i in range(24):
        (tmp_path / f"{i}.png").write_bytes(file(Image.fromarray(noise(64, 64, i))))
    rows = [
        SCHEMAS["rlaif_v"](f"{i // 2}.png", "Is there a cup in the image?", "Yes", "No, there is not")
        for i in range(48)
    ]
    path, output = written(tmp_path, rows), tmp_path / "out"
    said = ask(path, "--model", "scenes-vlm", "--output", str(output), "--limit", "44")
    for shown in ("no image", "another pair's image", "the pair's own image"):
        assert f"| scenes-vlm, shown {shown} |" in said
    result = json.loads((output / "blindness.json").read_text())
    assert result["total"] == 48 and result["value"] == 1.0 and result["model"] == "scenes-vlm"
    # Of pairs that say the same about one image the probe takes one.
    assert {reader["pairs"] for reader in result["readers"].values()} <= {22, 23, 24}
    assert all(reader["value"] is not None for reader in result["readers"].values())
    times = [path.stat().st_mtime_ns for path in output.glob("*.arrow")]
    ask(path, "--model", "scenes-vlm", "--output", str(output), "--limit", "44")
    assert times == [path.stat().st_mtime_ns for path in output.glob("*.arrow")]
