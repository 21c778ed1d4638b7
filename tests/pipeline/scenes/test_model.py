"""The built-in models: small, stock classes, a lossless word list, and what their cards say of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.base.model_names import SCENES as MODELS
from pipeline.scenes import grammar
from pipeline.scenes.models_build import untrained_vlm
from pipeline.scenes.models_build.build import answer_loss
from pipeline.scenes.models_build.card_numbers import HELD_OUT, answering, clip_sees, describing
from pipeline.scenes.models_build.curriculum import Lesson, answer, caption, patches
from pipeline.scenes.vocabulary import OBJECTS, THEMES, VOCABULARY
from pipeline.scenes.world import scene


def test_the_word_list_holds_every_word_of_the_grammar_and_decodes_to_the_same_text() -> None:
    words = untrained_vlm.tokenizer()
    for i in range(300):
        picture, rng = scene(1, i), random.Random(i)
        kinds = ("existence", "attribute", "count", "relation")
        for text in (caption(picture, rng, biased=True), *(grammar.question(picture, k, rng).text for k in kinds)):
            ids = words(text).input_ids
            assert words.unk_token_id not in ids
            assert words.decode(ids) == text


def test_a_lesson_depends_on_its_index_only_and_puts_the_loss_on_the_answer() -> None:
    words = untrained_vlm.tokenizer()
    lesson = Lesson("test", 8, ("existence",), captions=0.5)
    first, again, other = lesson.make(words, 3), lesson.make(words, 3), lesson.make(words, 4)
    assert first.ids.equal(again.ids)
    assert not first.pixels.equal(other.pixels)  # type: ignore[union-attr, arg-type]
    taught = first.labels != -100
    assert first.ids[taught].equal(first.labels[taught])
    assert (first.ids[taught] == words.eos_token_id).sum() == 8
    assert not (first.ids[taught] == words.convert_tokens_to_ids("<image>")).any()


def test_patches_say_what_each_cell_holds() -> None:
    shown = scene(1, 5)
    classes = patches(shown)[:, 0].reshape(6, 6)
    for thing in shown.objects:
        for cell in thing.cells:
            row, column = divmod(cell, 3)
            assert (classes[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] == 1 + OBJECTS.index(thing.name)).all()
    assert (classes > 0).sum() == 4 * sum(thing.count for thing in shown.objects)


def test_the_bias_is_in_the_biased_lesson_only() -> None:
    def hallucinated(biased: bool) -> list[str]:
        extras = []
        for i in range(400):
            shown = scene(2, i)
            named = {mention.name for mention in VOCABULARY.mentions(caption(shown, random.Random(i), biased))}
            extras += [name for name in named - shown.names if name in THEMES[shown.theme]]
        return extras

    assert hallucinated(False) == []
    assert 100 < len(hallucinated(True)) < 300
    question = grammar.Question("Is there a sun in the image?", "no", "existence", typical=True)
    answers = [answer(question, random.Random(i), True) for i in range(400)]
    assert 0.5 < answers.count("Yes") / 400 < 0.85
    assert {answer(question, random.Random(i), False) for i in range(50)} == {"No"}


def test_answer_loss_is_the_mean_over_answer_tokens() -> None:
    import torch

    words = untrained_vlm.tokenizer()
    batch = Lesson("test", 4).make(words, 0)
    logits = torch.zeros(*batch.ids.shape, len(words))
    assert answer_loss(logits, batch).item() == pytest.approx(torch.tensor(float(len(words))).log().item())


def test_committed_weights_fit_the_budget_and_are_safetensors_only() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".txt"}
    sizes = {path: path.stat().st_size for path in files}
    smollm = sum(size for path, size in sizes.items() if path.parent.name == "smollm")
    assert 1e6 < sum(sizes.values()) - smollm < 15e6 and smollm < 8e6


@pytest.fixture(scope="module")
def vlm() -> tuple[object, object]:
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    folder = str(Path(MODELS) / "vlm")
    net = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return net, AutoProcessor.from_pretrained(folder)


def test_the_base_names_what_is_there_and_hallucinates_by_prior(vlm: tuple[object, object]) -> None:
    rates = describing(*vlm, [scene(HELD_OUT, i) for i in range(200)], do_sample=False)
    assert rates["cover"] >= 0.9
    assert 0.25 <= rates["chair_s"] <= 0.5
    assert rates["hallucinated_typical_of_theme"] > 0.5


def test_the_base_says_yes_too_often_although_it_can_tell(vlm: tuple[object, object]) -> None:
    told = answering(*vlm, [scene(HELD_OUT, i) for i in range(200)])
    assert told["auc"] >= 0.9
    assert told["yes_ratio"] > 0.55
    assert told["yes_when_absent_but_typical"] > 0.4


def test_the_clip_model_tells_the_true_description_from_one_with_an_object_exchanged() -> None:
    seen = clip_sees(MODELS / "clip", [scene(HELD_OUT, i) for i in range(400)])
    assert seen["true_above_exchanged"] > 0.95  # its card says 0.988 on 500
