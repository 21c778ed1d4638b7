from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.base.errors import EngineError
from pipeline.base.model_names import identity, require_folder, resolve


def folder(path: Path, weights: bytes = b"w") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_hub_id_is_left_alone() -> None:
    assert resolve("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    assert identity("llava-hf/llava-1.5-7b-hf", "abc") == "llava-hf/llava-1.5-7b-hf@abc"


def test_a_missing_folder_gets_a_suggestion(tmp_path: Path) -> None:
    folder(tmp_path / "model-a")
    with pytest.raises(EngineError, match=r"did you mean .*model-a"):
        resolve(str(tmp_path / "modle-a"))
    with pytest.raises(EngineError, match="scenes-vlm"):
        resolve("scenes-vml")


def test_identity_is_the_content_wherever_it_lies(tmp_path: Path) -> None:
    a, b, c = folder(tmp_path / "a"), folder(tmp_path / "b"), folder(tmp_path / "c", b"other")
    (b / "README.md").write_text("documentation is not identity")
    assert identity(str(a)) == identity(str(b)) != identity(str(c))


def test_identity_sees_new_weights(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    before = identity(str(path))
    (path / "model.safetensors").write_bytes(b"x")
    os.utime(path / "model.safetensors", ns=(1, 1))
    assert identity(str(path)) != before


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no config\.json"):
        require_folder(str(tmp_path), "config.json")
    with pytest.raises(EngineError, match="holds no model"):
        identity(str(tmp_path))
