"""The main VLM families, each through its own processor: loaded, prompted and sampled as ``docs/models.md`` says.

The models are tiny and random, so transformers itself is the judge of every answer: vLLM must give the same greedy
tokens with the same log-probability, which it does only if weights, prompt tokens and image features are all in place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FAMILIES, Family, ask_vllm, hasten_vllm, image, save

from pipeline.engines.protocol import Completion, Request, Response, Sampling
from pipeline.engines.vllm import conversation

QUESTION = "What is this?"
WIDE, SQUARE = image(2, 1), image(1, 1, seed=1)
PROMPTS = {
    "text": (),
    "one image": (WIDE,),
    "another image": (image(2, 1, seed=2),),
    "two images": (WIDE, SQUARE),
}
SAMPLINGS = {
    "two": Sampling(n=2, temperature=1.0, max_tokens=8),
    "greedy": Sampling(n=1, temperature=0.0, max_tokens=6),
}
DOCS = Path(__file__).parents[3] / "docs" / "models.md"


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model on disk, opened by transformers."""

    family: Family
    folder: Path
    model: Any
    processor: Any
    info: dict[str, Any]

    def inputs(self, images: tuple[bytes, ...]) -> dict[str, Any]:
        """Template, image expansion and tokens, all done by the family's own processor."""
        messages = conversation(request("any", images))
        pictures = iter(images)
        for part in messages[0]["content"]:
            if part["type"] == "image":
                part["image"] = decoded(next(pictures))
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    def greedy(self, inputs: dict[str, Any]) -> Completion:
        output = self.model.generate(
            **inputs,
            max_new_tokens=SAMPLINGS["greedy"].max_tokens,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        tokens = output.sequences[0][inputs["input_ids"].shape[1] :]
        chosen = (float(scores[0].log_softmax(-1)[token]) for scores, token in zip(output.scores, tokens, strict=True))
        finish = "stop" if tokens[-1] == self.processor.tokenizer.eos_token_id else "length"
        text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return Completion(text.strip(), len(tokens), finish, sum(chosen))


@dataclass(frozen=True)
class Deviation:
    """Prompts that vLLM 0.32 answers otherwise than transformers, why, and what makes transformers answer alike."""

    prompts: frozenset[str]
    reason: str
    inputs: Callable[[Tiny, tuple[bytes, ...]], dict[str, Any]]


def each_image_in_squares(tiny: Tiny, images: tuple[bytes, ...]) -> dict[str, Any]:
    text = tiny.processor.apply_chat_template(conversation(request("any", images)), add_generation_prompt=True)
    # A flat list: to OneVision's processor these are images of several prompts, each the only one of its own.
    return tiny.processor(text=[text], images=[decoded(data) for data in images], return_tensors="pt")


def causal(tiny: Tiny, images: tuple[bytes, ...]) -> dict[str, Any]:
    # Gemma's token types say which tokens belong to an image; without them the mask is causal everywhere.
    return {key: value for key, value in tiny.inputs(images).items() if key != "token_type_ids"}


DEVIATIONS = {
    "LLaVA-OneVision": Deviation(
        frozenset({"two images"}),
        "vLLM cuts each of several images into squares, transformers shows them whole",
        each_image_in_squares,
    ),
    "Gemma 3": Deviation(
        frozenset({"one image", "another image", "two images"}),
        "on CPU vLLM lets image tokens see only those before them, transformers the whole image",
        causal,
    ),
}
#: Families whose processor does not open with the project's own dependencies, and what it says.
UNPROVED = {"SmolVLM2": "Package `num2words` is required to run SmolVLM processor"}


@pytest.fixture(
    scope="module", params=[family for family in FAMILIES if family.name not in UNPROVED], ids=attrgetter("name")
)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    family: Family = request.param
    folder = save(family, tmp_path_factory.mktemp("tiny") / "model")
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    return Tiny(family, folder, model, AutoProcessor.from_pretrained(folder), info)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """One process for the engines of all families, one after the other."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=hasten_vllm) as pool:
        yield pool


@pytest.fixture(scope="module")
def answers(tiny: Tiny, elsewhere: ProcessPoolExecutor) -> dict[str, dict[str, Response]]:
    """By sampling, then by prompt."""
    questions = {
        sampling: ([request(prompt, images) for prompt, images in PROMPTS.items()], SAMPLINGS[sampling])
        for sampling in SAMPLINGS
    }
    answered = elsewhere.submit(ask_vllm, tiny.folder, list(questions.values())).result()
    by_id = ({response.id: response for response in responses} for responses in answered)
    return dict(zip(questions, by_id, strict=True))


def request(id: str, images: tuple[bytes, ...], seed: int = 5) -> Request:
    return Request(id, images, (("user", QUESTION),), seed)


def decoded(data: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data))


def alike(a: Completion, b: Completion) -> bool:
    assert a.logprob is not None and b.logprob is not None
    same = (a.text, a.n_tokens, a.finish_reason) == (b.text, b.n_tokens, b.finish_reason)
    return same and abs(a.logprob - b.logprob) < 1e-3


def test_transformers_finds_class_weights_and_processor_in_the_folder(tiny: Tiny) -> None:
    assert type(tiny.model).__name__ == tiny.family.architecture
    assert type(tiny.processor).__name__ == tiny.family.architecture.replace("ForConditionalGeneration", "Processor")
    assert not tiny.info["missing_keys"] and not tiny.info["unexpected_keys"]


def test_a_prompt_holds_the_image_tokens_of_its_images(tiny: Tiny) -> None:
    single, two = tiny.family.tokens
    held = {
        name: int((tiny.inputs(images)["input_ids"] == tiny.model.config.image_token_id).sum())
        for name, images in PROMPTS.items()
    }
    assert held == {"text": 0, "one image": single, "another image": single, "two images": two}


def test_a_prompt_opens_once(tiny: Tiny) -> None:
    begin = tiny.processor.tokenizer.bos_token_id
    if begin is not None:
        ids = tiny.inputs(())["input_ids"][0].tolist()
        assert ids[0] == begin and begin not in ids[1:]


def test_every_request_gets_n_answers(answers: dict[str, dict[str, Response]]) -> None:
    assert {prompt: answer.error for prompt, answer in answers["two"].items()} == dict.fromkeys(PROMPTS)
    for answer in answers["two"].values():
        first, second = answer.completions
        assert first != second
        assert all(0 < completion.n_tokens <= 8 and completion.logprob < 0 for completion in answer.completions)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_vllm_answers_as_transformers_does(tiny: Tiny, answers: dict[str, dict[str, Response]], prompt: str) -> None:
    images = PROMPTS[prompt]
    (ours,) = answers["greedy"][prompt].completions
    deviation = DEVIATIONS.get(tiny.family.name)
    if deviation and prompt in deviation.prompts:
        assert not alike(ours, tiny.greedy(tiny.inputs(images))), f"no longer true: {deviation.reason}"
        assert alike(ours, tiny.greedy(deviation.inputs(tiny, images)))
    else:
        assert alike(ours, tiny.greedy(tiny.inputs(images)))


def test_another_image_gives_another_answer(answers: dict[str, dict[str, Response]]) -> None:
    (a,), (b,) = (answers["greedy"][prompt].completions for prompt in ("one image", "another image"))
    assert abs(a.logprob - b.logprob) > 1e-2


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.name in UNPROVED], ids=attrgetter("name"))
def test_what_is_not_proved_fails_for_the_reason_given(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where the extra is not installed, which it is once `make families` has run.
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None, raising=False)
    with pytest.raises(ImportError, match=re.escape(UNPROVED[family.name])):
        save(family, tmp_path / "model")


def test_the_docs_list_what_is_proved_here() -> None:
    lines = DOCS.read_text().splitlines()
    assert [line for line in lines if "ForConditionalGeneration`" in line] == [row(family) for family in FAMILIES]


def row(family: Family) -> str:
    cells = ["yes", "yes", "yes"]
    if family.name in DEVIATIONS:
        cells[2] = f"yes, but {DEVIATIONS[family.name].reason}"
    if family.name in UNPROVED:
        cells = ["no", "no", f"not proved: {UNPROVED[family.name]}"]
    return "| " + " | ".join([family.name, f"`{family.released}`", f"`{family.architecture}`", *cells]) + " |"
