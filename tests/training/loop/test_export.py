"""The exported folder: names that vLLM and transformers both read, same logits, never half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from pipeline.base import export
from pipeline.base.export import save_for_vllm, vllm_key
from training.config import TrainConfig
from training.forward.model import load_model, prepare_tuning, trainable
from training.loop.export import export as export_trained
from training.loop.export import rebuild
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]


def logits(model: Any, processor: Any, image: Any) -> torch.Tensor:
    inputs = processor(images=[image], text=["<user><image>what is this<assistant>"], return_tensors="pt")
    with torch.no_grad():
        result: torch.Tensor = model.eval()(**inputs).logits
    return result


def test_the_tower_is_written_under_the_name_that_vllm_reads(model_folder: Path) -> None:
    names = list(load_file(model_folder / "model.safetensors"))
    tower = [name for name in names if "vision_tower" in name]
    assert tower
    assert all(name.startswith("vision_tower.vision_model.") for name in tower)
    assert {name.split(".")[0] for name in names} == {"vision_tower", "multi_modal_projector", "language_model"}


def test_renaming_is_idempotent_and_leaves_other_names() -> None:
    once = vllm_key("vision_tower.embeddings.class_embedding")
    assert once == vllm_key(once) == "vision_tower.vision_model.embeddings.class_embedding"
    assert vllm_key("model.vision_tower.x") == "model.vision_tower.vision_model.x"
    assert vllm_key("language_model.vision_tower.x") == "language_model.vision_tower.x"
    assert vllm_key("lm_head.weight") == "lm_head.weight"


def test_transformers_reads_the_folder_back_with_identical_logits(
    model_folder: Path, make_model: Callable[..., Any], processor: Any, draw: Callable[[int], Any]
) -> None:
    reread, info = LlavaForConditionalGeneration.from_pretrained(model_folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    again = AutoProcessor.from_pretrained(model_folder)
    assert again.chat_template == processor.chat_template
    assert torch.equal(logits(reread, again, draw(3)), logits(make_model(), processor, draw(3)))


def test_a_sharded_model_keeps_its_index_in_line(
    make_model: Callable[..., Any], processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Any
) -> None:
    model = make_model()
    real = model.save_pretrained
    monkeypatch.setattr(model, "save_pretrained", lambda folder: real(folder, max_shard_size="100KB"))
    folder = save_for_vllm(model, processor, tmp_path / "sharded")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    for name, shard in index["weight_map"].items():
        assert name in load_file(folder / shard)
    reread = LlavaForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(logits(reread, processor, draw(0)), logits(make_model(), processor, draw(0)))


def test_weights_and_config_take_the_dtype_asked_for(
    make_model: Callable[..., Any], processor: Any, tmp_path: Path
) -> None:
    model = make_model()
    folder = save_for_vllm(model, processor, tmp_path / "half", torch.bfloat16)
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert LlavaForConditionalGeneration.from_pretrained(folder).dtype == torch.bfloat16
    assert model.dtype == torch.float32


def test_a_save_that_dies_leaves_the_old_folder_as_it_was(
    make_model: Callable[..., Any], processor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_for_vllm(make_model(0), processor, tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "_rewrite_weights", die)
        save_for_vllm(make_model(1), processor, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    save_for_vllm(make_model(1), processor, folder)
    assert (folder / "model.safetensors").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_trained_folder_reloads_and_holds_the_trained_weights(
    configure: Configure, make_model: Callable[..., Any], draw: Callable[[int], Any], tuning: str
) -> None:
    config = configure(tuning=tuning, max_steps=3, lora={"r": 4, "alpha": 8})
    folder = train(config).model
    trained, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(folder)
    after = logits(trained, processor, draw(0))
    assert (after - logits(make_model(), processor, draw(0))).abs().max() > 1e-4
    if tuning == "lora":
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(make_model(), str(config.output_dir / "adapter"))
        torch.testing.assert_close(logits(adapted, processor, draw(0)), after, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_put_into_the_starting_model_read_again_the_trained_tensors_give_the_same_folder(
    configure: Configure, tmp_path: Path, tuning: str
) -> None:
    # What split and 4-bit models are exported by; the starting model itself is the negative control.
    config = configure(tuning=tuning, lora={"r": 2, "alpha": 4})
    model, processor = load_model(config)
    model = prepare_tuning(model, config)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    trained = {name: value.detach().clone() for name, value in trainable(model).items()}
    again = configure(tuning=tuning, lora={"r": 2, "alpha": 4}, output_dir=tmp_path / "again")
    export_trained(model, processor, again, trained)
    export_trained(model, processor, config)
    first, other = (load_file(c.output_dir / "model" / "model.safetensors") for c in (config, again))
    assert first.keys() == other.keys()
    for name in first:
        torch.testing.assert_close(other[name], first[name], atol=1e-6, rtol=1e-6)
    start = load_file(Path(config.model) / "model.safetensors")
    assert any(not torch.equal(other[name], start[name]) for name in other)


def test_a_tensor_that_is_missing_is_not_exported_as_it_was(configure: Configure) -> None:
    config = configure(tuning="lora", lora={"r": 2, "alpha": 4})
    with pytest.raises(KeyError, match="lora_A"):
        rebuild(config, {})


def test_a_generation_config_that_transformers_reads_but_does_not_write_is_kept(
    configure: Configure, model_folder: Path, tmp_path: Path
) -> None:
    """LLaVA-1.5's and others' name a temperature without sampling: a training ended in a traceback at its last step."""
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    odd = {"do_sample": False, "temperature": 0.2, "top_p": 0.9, "eos_token_id": [2, 3]}
    (base / "generation_config.json").write_text(json.dumps(odd))
    model = train(configure(model=str(base), max_steps=1)).model
    assert odd.items() <= json.loads((model / "generation_config.json").read_text()).items()
    assert LlavaForConditionalGeneration.from_pretrained(model).generation_config.eos_token_id == [2, 3]


def test_a_generation_config_is_written_as_transformers_writes_it(
    make_model: Callable[..., Any], processor: Any, tmp_path: Path
) -> None:
    model = make_model()
    own = model.generation_config
    save_for_vllm(model, processor, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    name = "generation_config.json"
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert model.generation_config is own


def test_the_adapter_has_no_form_that_names_a_folder_of_this_machine(configure: Configure) -> None:
    config = configure(tuning="lora", lora={"r": 2, "alpha": 4}, max_steps=1)
    train(config)
    assert {path.name for path in (config.output_dir / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
