"""Reward models of every form, tiny and random: transformers' own numbers are what the scorer must give."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_models import gemma3, idefics3, image, llava, qwen2_5_vl, random, text_sizes, tokenizer

from reward.models.backend import TransformersRewards
from reward.models.conversation import BadConversation, Conversation
from reward.models.network import GatingHead
from reward.models.reward_checkpoint import HEAD_FILE, VALUE_HEAD_FILE, read_checkpoint
from reward.scorers.reward_model import RewardModelScorer

TEXT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
)
QUESTION = "What is this?"
SUN, SEA = image(1, 1, seed=1), image(1, 1, seed=2)
ROWS = [
    {"images": [SUN], "answers": ["a sun", "a much longer text about the sea and the sun", "x"]},
    {"images": [SUN], "answers": ["a sun.", "no"]},
    {"images": [SEA], "answers": ["a sun", ""]},
]


def row(images, answers, prompt=QUESTION):
    return {
        "images": list(images),
        "prompt": [{"role": "user", "content": prompt}],
        "facts": None,
        "candidates": [{"text": text} for text in answers],
    }


def rows():
    return [row(**values) for values in ROWS]


def flat(values):
    return [value for of_row in values for value in of_row]


def words():
    made = tokenizer(["<|im_start|>"], bos="<s>", eos="<|im_end|>", adds_bos=True)
    made.chat_template = TEXT_TEMPLATE
    return made


def head(folder, size, seed=0, name=HEAD_FILE, prefix="", **metadata):
    generator = torch.Generator().manual_seed(seed)
    weights = {"weight": torch.randn(1, size, generator=generator), "bias": torch.tensor([0.25])}
    save_file({prefix + key: tensor for key, tensor in weights.items()}, folder / name, metadata=metadata or None)
    return weights


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A text-only sequence classifier with one label, as Skywork-Reward is one."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    made = words()
    random(LlamaForSequenceClassification, LlamaConfig(**text_sizes(made), num_labels=1)).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    """A LLaVA with a reward head beside it."""
    folder = tmp_path_factory.mktemp("vlm")
    model, processor = llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    head(folder, model.config.text_config.hidden_size)
    return folder


def alone(folder, question, answer):
    """transformers, one conversation at a time, no padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    inputs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        return float(model(**inputs).logits[0, 0])


def test_a_text_only_classifier_gives_transformers_own_logit(classifier):
    values = RewardModelScorer(classifier, batch_size=4, device="cpu").score(rows())["reward_model"]
    expected = [[alone(classifier, QUESTION, text) for text in values["answers"]] for values in ROWS]
    assert flat(values) == pytest.approx(flat(expected), abs=1e-4)
    assert len({round(value, 3) for value in flat(values)}) == 6  # "a sun" twice, whatever the image
    assert RewardModelScorer(classifier).version.endswith(":blind")


@pytest.mark.parametrize("form", ["classifier", "vlm"])
def test_a_reward_does_not_depend_on_its_batch(form, request):
    folder = request.getfixturevalue(form)
    together = RewardModelScorer(folder, batch_size=8, device="cpu").score(rows())["reward_model"]
    alone = [
        RewardModelScorer(folder, batch_size=1, device="cpu").score([single])["reward_model"][0] for single in rows()
    ]
    assert flat(together) == pytest.approx(flat(alone), abs=1e-4)


@pytest.mark.parametrize("build", [llava, qwen2_5_vl, idefics3])
def test_shared_prompts_change_no_reward(build, tmp_path, recwarn):
    model, processor = build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    head(tmp_path, model.config.text_config.hidden_size)
    many = [*rows(), row([SUN, SEA], ["two", "two of them", ""]), row([], ["none", "none at all"])]
    alone = RewardModelScorer(tmp_path, device="cpu", share_prompt=False).score(many)["reward_model"]
    for size in (1, 4, 32):
        scorer = RewardModelScorer(tmp_path, batch_size=size, device="cpu")
        assert flat(scorer.score(many)["reward_model"]) == pytest.approx(flat(alone), abs=1e-4)
        assert scorer._backend._shares and scorer._backend._tried
    assert not [warning for warning in recwarn if "anew" in str(warning.message)]


def test_negative_control_a_wrong_packed_reward_is_found(vlm, monkeypatch):
    alone = RewardModelScorer(vlm, device="cpu", share_prompt=False).score(rows())["reward_model"]
    monkeypatch.setattr(
        "reward.forward.token_logps.position_ids", lambda model, packed, prompts: packed.offsets[None] * 0
    )
    scorer = RewardModelScorer(vlm, device="cpu")
    with pytest.warns(UserWarning, match="reward_model reads prompt and images anew .* rewards were apart"):
        values = scorer.score(rows())["reward_model"]
    assert flat(values) == pytest.approx(flat(alone), abs=1e-5) and not scorer._backend._shares


def test_padding_on_the_left_gives_the_same_reward(vlm, monkeypatch):
    """Positions are relative in these models; what could go wrong is the place of the last token."""
    scorer = RewardModelScorer(vlm, device="cpu", share_prompt=False)
    right = flat(scorer.score(rows())["reward_model"])
    processor = scorer._backend.reader.processor
    sides = []

    class Left:
        tokenizer, chat_template = processor.tokenizer, processor.chat_template
        apply_chat_template = staticmethod(processor.apply_chat_template)

        def __call__(self, **options):
            made = processor(**{**options, "padding_side": "left"})
            sides.append(bool((made["attention_mask"][:, 0] == 0).any()))
            return made

    monkeypatch.setattr(scorer._backend.reader, "processor", Left())
    assert flat(scorer.score(rows())["reward_model"]) == pytest.approx(right, abs=1e-4)
    assert any(sides)


def by_hand(model, processor, weights, pictures, answer):
    """The head at the hidden state of the last token, of one conversation."""
    import io

    from PIL import Image

    content = [{"type": "image", "image": Image.open(io.BytesIO(picture)).convert("RGB")} for picture in pictures]
    messages = [
        {"role": "user", "content": [*content, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    return float(hidden @ weights["weight"][0] + weights["bias"][0])


@pytest.mark.parametrize("build", [llava, qwen2_5_vl, idefics3, gemma3])
def test_a_vision_language_model_with_a_head_is_read_at_the_last_token(build, tmp_path):
    model, processor = build()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = head(tmp_path, model.config.get_text_config().hidden_size, name=VALUE_HEAD_FILE, prefix="v_head.summary.")
    table = [
        row([SUN], ["a sun", "the sea and more"]),
        row([SEA], ["a sun"]),
        row([], ["a sun"]),
        row([SUN, SEA], ["x"]),
    ]
    scorer = RewardModelScorer(tmp_path, device="cpu")
    values = scorer.score(table)["reward_model"]
    expected = [
        [by_hand(model, processor, weights, of_row["images"], c["text"]) for c in of_row["candidates"]]
        for of_row in table
    ]
    assert flat(values) == pytest.approx(flat(expected), rel=1e-4, abs=1e-3)
    assert abs(values[0][0] - values[1][0]) > 1e-2  # the image is seen
    assert not scorer.version.endswith(":blind")


def test_gemmas_own_classifier_sees_the_image(tmp_path):
    from transformers import Gemma3ForSequenceClassification

    model, processor = gemma3()
    config = model.config
    config.num_labels = 1
    random(Gemma3ForSequenceClassification, config, spread=0.1).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    values = RewardModelScorer(tmp_path, device="cpu").score([row([SUN], ["a sun"]), row([SEA], ["a sun"])])
    first, second = flat(values["reward_model"])
    assert abs(first - second) > 1e-4


def test_both_names_of_a_value_head_and_our_own_are_the_same_head(vlm, tmp_path):
    expected = RewardModelScorer(vlm, device="cpu").score(rows())
    weights = load_file(vlm / HEAD_FILE)
    for number, prefix in enumerate(("summary.", "v_head.summary.")):
        folder = shutil.copytree(vlm, tmp_path / str(number), ignore=shutil.ignore_patterns(HEAD_FILE))
        save_file({prefix + key: tensor for key, tensor in weights.items()}, folder / VALUE_HEAD_FILE)
        assert RewardModelScorer(folder, device="cpu").score(rows()) == expected


def test_a_blind_head_gives_the_same_reward_whatever_the_image(vlm, tmp_path):
    folder = shutil.copytree(vlm, tmp_path / "blind")
    head(folder, 64, blind="true")
    scorer = RewardModelScorer(folder, device="cpu")
    values = scorer.score(rows())["reward_model"]
    assert values[0][0] == values[2][0] and scorer.version.endswith(":blind")


def test_an_adapter_is_applied_to_its_model(vlm, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, processor = llava()
    names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj")) and "language" in name]
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=names, init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some-vlm"}))
    weights = head(tmp_path, 64)
    with pytest.raises(ValueError, match="belongs to the model 'some-vlm', which is no folder; pass it as base"):
        RewardModelScorer(tmp_path)
    values = RewardModelScorer(tmp_path, base=str(vlm), device="cpu").score([row([SUN], ["a sun"])])
    assert flat(values["reward_model"]) == pytest.approx(
        [by_hand(adapted, processor, weights, [SUN], "a sun")], abs=1e-3
    )
    plain = by_hand(llava()[0], processor, weights, [SUN], "a sun")
    assert abs(plain - values["reward_model"][0][0]) > 1e-2  # it does something


def test_armorms_gate_reads_the_prompt_and_weighs_objectives_read_at_the_end(tmp_path):
    from transformers import LlamaConfig, LlamaModel

    made = words()
    config = LlamaConfig(**text_sizes(made), architectures=["LlamaForRewardModelWithGating"], gating_temperature=2)
    model = random(LlamaModel, config)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    gating = {
        "regression_layer.weight": draw(3, 64),
        "reward_transform_matrix": draw(3, 3),
        "gating.logit_scale": torch.tensor([1.5]),
        "gating.layers.0.weight": draw(8, 64),
        "gating.layers.0.bias": draw(8),
        "gating.layers.1.weight": draw(3, 8),
        "gating.layers.1.bias": draw(3),
    }
    weights = {f"model.{key}": tensor for key, tensor in model.state_dict().items()} | gating
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["LlamaForRewardModelWithGating"]
    config.save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    values = RewardModelScorer(tmp_path, device="cpu").score([row([], ["a sun", "the sea, in many words"])])

    def expected(answer):
        prompt = f"<s><|im_start|>user\n{QUESTION}<|im_end|>\n"
        text = prompt + f"<|im_start|>assistant\n{answer}<|im_end|>\n"
        ids = made(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            hidden = model(ids).last_hidden_state[0]
        header = hidden[len(made(prompt, add_special_tokens=False).input_ids)]
        inner = (gating["gating.layers.0.weight"] @ header + gating["gating.layers.0.bias"]).relu()
        gate = ((gating["gating.layers.1.weight"] @ inner + gating["gating.layers.1.bias"]) / 2).softmax(0) * 1.5
        return float(gate @ (gating["regression_layer.weight"] @ hidden[-1] @ gating["reward_transform_matrix"]))

    wanted = [expected("a sun"), expected("the sea, in many words")]
    assert flat(values["reward_model"]) == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def test_a_gate_of_equal_weights_is_the_mean_of_the_objectives():
    weights = {
        "regression_layer.weight": torch.eye(2),
        "reward_transform_matrix": torch.eye(2),
        "gating.logit_scale": torch.ones(1),
        "gating.layers.0.weight": torch.zeros(2, 2),
        "gating.layers.0.bias": torch.zeros(2),
    }
    reward = GatingHead(weights, temperature=10)(torch.tensor([[3.0, 5.0]]), torch.tensor([[9.0, 9.0]]))
    assert reward.tolist() == [4.0]


def test_a_conversation_beyond_the_context_is_null_and_its_neighbours_are_scored(vlm, classifier):
    for folder in (vlm, classifier):
        scorer = RewardModelScorer(folder, device="cpu")
        values = scorer.score([row([SUN], ["a sun", "sun " * 300]), row([SUN], ["sun " * 300])])["reward_model"]
        assert values[0][1] is None and values[1] == [None]
        assert values[0][0] == pytest.approx(scorer.score([row([SUN], ["a sun"])])["reward_model"][0][0], abs=1e-4)


def test_errors_name_the_row_and_the_candidate(vlm, tmp_path):
    scorer = RewardModelScorer(vlm, device="cpu")
    with pytest.raises(ValueError, match="row 1, candidate 0: image 0: cannot be decoded"):
        scorer.score([row([SUN], ["a"]), row([b"no image"], ["a"])])
    folder = shutil.copytree(vlm, tmp_path / "strict")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    bad = {**row([], ["a"]), "prompt": [{"role": "system", "content": "s"}]}
    with pytest.raises(ValueError, match="row 0, candidate 0: chat template"):
        RewardModelScorer(folder, device="cpu").score([bad])
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages if m.role != 'system' %}{{ m.content[-1].text }}{% endfor %}"
    )
    with pytest.raises(ValueError, match=r"row 0, candidate 0: .* does not show the system message"):
        RewardModelScorer(folder, device="cpu").score([bad])


def test_what_is_no_trained_reward_model_is_refused(classifier, vlm, tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    with pytest.raises(ValueError, match=r"has no config\.json"):
        RewardModelScorer(tmp_path)
    with pytest.raises(ValueError, match=r"has no config\.json; give a folder .*, or a hub id in reach"):
        RewardModelScorer("no/such-model").score(rows())
    with pytest.raises(ValueError, match="is no folder, and no hub model that can be read"):
        RewardModelScorer(tmp_path / "gone").score(rows())
    with pytest.raises(ValueError, match="which has no reward head"):
        RewardModelScorer(shutil.copytree(vlm, tmp_path / "none", ignore=shutil.ignore_patterns(HEAD_FILE)))
    random_head = shutil.copytree(classifier, tmp_path / "random")
    weights = load_file(random_head / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if k != "score.weight"}, random_head / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"no weights for score\.weight; they would be random"):
        RewardModelScorer(random_head, device="cpu").score(rows())
    made = words()
    two = tmp_path / "two"
    random(LlamaForSequenceClassification, LlamaConfig(**text_sizes(made), num_labels=2)).save_pretrained(two)
    made.save_pretrained(two)
    with pytest.raises(ValueError, match="has 2 labels; a reward model has 1"):
        RewardModelScorer(two, device="cpu").score(rows())
    wide = shutil.copytree(vlm, tmp_path / "wide")
    head(wide, 65)
    with pytest.raises(ValueError, match=r"wanted are weight \(1, 64\)"):
        RewardModelScorer(wide, device="cpu").score(rows())
    with pytest.raises(ValueError, match="is no adapter"):
        RewardModelScorer(vlm, base=str(classifier))


def test_pickled_weights_are_never_read(classifier, tmp_path):
    folder = shutil.copytree(classifier, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(classifier / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        RewardModelScorer(folder, device="cpu").score(rows())


def test_version_follows_content_and_precision_not_the_place(vlm, tmp_path):
    copy = shutil.copytree(vlm, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    assert RewardModelScorer(copy).version == RewardModelScorer(vlm).version
    assert RewardModelScorer(vlm, dtype="bfloat16").version != RewardModelScorer(vlm).version
    head(copy, 64, seed=1)
    assert RewardModelScorer(copy).version != RewardModelScorer(vlm).version


class Lengths:
    """A backend that counts what it is asked."""

    def __init__(self):
        self.read = []

    def rewards(self, conversations):
        self.read += conversations
        return [float(len(conversation.messages[-1][1])) for conversation in conversations]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.lists(st.text(max_size=3), max_size=4)), max_size=5))
def test_every_distinct_conversation_is_scored_once_and_lands_in_its_place(made):
    folder = _folder()
    backend = Lengths()
    scorer = RewardModelScorer(folder, backend=backend)
    table = [row([picture], texts) for picture, texts in made]
    assert scorer.score(table) == {"reward_model": [[float(len(text)) for text in texts] for _, texts in made]}
    assert len(backend.read) == len(set(backend.read)) == len({text for _, texts in made for text in texts})
    assert not any(conversation.images for conversation in backend.read)  # a text-only model is sent none


def test_a_backend_that_returns_nan_is_an_error_of_its_row():
    class Nan:
        def rewards(self, conversations):
            return [float("nan") if conversation.messages[-1][1] == "bad" else 0.0 for conversation in conversations]

    with pytest.raises(ValueError, match="row 1, candidate 1: the reward is nan; try dtype=float32"):
        RewardModelScorer(_folder(), backend=Nan()).score([row([], ["a"]), row([], ["a", "bad"])])


def test_bad_conversations_keep_their_place_through_batches(vlm):
    backend = TransformersRewards.open(read_checkpoint(str(vlm)), 2, "float32", "cpu")
    good = [Conversation((SUN,), (("user", QUESTION), ("assistant", "a" * n))) for n in range(5)]
    with pytest.raises(BadConversation) as error:
        backend.rewards([*good[:3], Conversation((b"",), good[0].messages), *good[3:]])
    assert error.value.index == 3


_FOLDERS = []


def _folder():
    """A folder that can be named and is never opened; one for all examples of a property."""
    if not _FOLDERS:
        import tempfile
        from pathlib import Path

        folder = tempfile.TemporaryDirectory()
        config = {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}
        (Path(folder.name) / "config.json").write_text(json.dumps(config))
        _FOLDERS.append(folder)
    return _FOLDERS[0].name
