"""Prompts and answers as token ids: the engine's begin, TRL's on request, and each distinct prompt read once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import processors

from training import formats
from training.config import make_config
from training.data.dataset import prepare
from training.data.identity import Start
from training.data.pairs import PairDataset
from training.data.tokens import Encoder, begin_of_text, content
from training.loop import reference

BOS = 1
TEXT = "<user><image>what is this<assistant>"


@pytest.fixture(scope="session")
def adding(processor: Any) -> Any:
    """A processor whose tokenizer puts <s> before every text, as those of Llama do; its template does not."""
    made = copy.deepcopy(processor)
    made.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    assert made.tokenizer("this").input_ids[0] == BOS
    return made


def picture(width: int = 40, height: int = 36, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def tokenised(processor: Any, rows: list[dict[str, Any]], publish: Callable[..., Any], **options: Any) -> PairDataset:
    config = make_config({"model": "m", "dataset": "d", "output_dir": "o", "objective": "dpo", **options})
    return prepare(formats.read(publish(rows)), processor, config)


def test_a_prompt_begins_as_the_engines_processor_makes_it_begin(adding: Any) -> None:
    engine = tuple(adding(text=[TEXT], images=[[picture()]])["input_ids"][0])
    assert Encoder(adding, add_bos=True).prompt(TEXT, [picture()]).ids == engine
    assert engine[:2] == (BOS, adding.tokenizer.convert_tokens_to_ids("<user>"))


def test_without_it_a_prompt_is_what_the_template_wrote_as_in_trl(adding: Any) -> None:
    theirs = tuple(adding(text=[TEXT], images=[[picture()]], add_special_tokens=False)["input_ids"][0])
    assert Encoder(adding).prompt(TEXT, [picture()]).ids == theirs
    assert BOS not in theirs


def test_a_template_that_writes_it_too_does_not_double_it(adding: Any) -> None:
    written = [Encoder(adding, add_bos).prompt(f"<s>{TEXT}", [picture()]).ids for add_bos in (True, False)]
    assert written[0] == written[1] == Encoder(adding, add_bos=True).prompt(TEXT, [picture()]).ids
    assert written[0].count(BOS) == 1


def test_a_tokenizer_that_adds_none_gets_none(processor: Any) -> None:
    assert begin_of_text(processor.tokenizer) is None
    assert Encoder(processor, add_bos=True).prompt(TEXT, []) == Encoder(processor).prompt(TEXT, [])


def test_answers_never_begin_with_it(adding: Any) -> None:
    assert BOS not in Encoder(adding, add_bos=True).answers(["this is red</s>"])[0]


def test_pairs_have_it_unless_the_configuration_says_never(
    adding: Any, rows: list[dict[str, Any]], publish: Callable[..., Any]
) -> None:
    auto = tokenised(adding, rows, publish)
    never = tokenised(adding, rows, publish, add_bos="never")
    for with_it, without in zip(auto.pairs, never.pairs, strict=True):
        assert with_it.prompt.ids == (BOS, *without.prompt.ids)
        assert (with_it.chosen_ids, with_it.rejected_ids) == (without.chosen_ids, without.rejected_ids)


def test_the_reference_of_the_one_is_not_read_for_the_other(
    adding: Any, processor: Any, rows: list[dict[str, Any]], publish: Callable[..., Any]
) -> None:
    def key(given: Any, add_bos: str) -> str:
        config = make_config({"model": "m", "dataset": "d", "output_dir": "o", "objective": "dpo", "add_bos": add_bos})
        return reference.fingerprint(
            tokenised(given, rows, publish, add_bos=add_bos), Start("weights", "config", "processor"), config
        )

    assert key(adding, "auto") != key(adding, "never")
    assert key(processor, "auto") == key(processor, "never")  # the same tokens, so the same values


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([1, 2]), st.sampled_from([40, 41]), st.sampled_from(["red", "blue"]), st.sampled_from("ab")
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_known_of_a_prompt_is_what_the_processor_would_say_again(processor: Any, calls: list[Any]) -> None:
    encoder = Encoder(processor)
    for number, width, colour, word in calls:
        images = [picture(width, colour=colour)] * number
        text = "<user>" + "<image>" * number + word
        encoded = encoder.prompt(text, images)
        assert encoded == Encoder(processor).prompt(text, images)
        assert encoded.images == tuple(map(content, images))


class Counting:
    """A processor that counts how often it is asked."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer, self.calls = processor, processor.tokenizer, 0

    def __call__(self, **options: Any) -> Any:
        self.calls += 1
        return self.processor(**options)


def test_a_prompt_is_read_once_per_text_and_sizes_of_images(processor: Any) -> None:
    counting = Counting(processor)
    encoder = Encoder(counting)
    for colour in ("red", "blue", "red"):
        encoder.prompt(TEXT, [picture(colour=colour)])
    assert counting.calls == 1
    encoder.prompt(TEXT, [picture(width=41)])
    encoder.prompt(TEXT.replace("this", "it"), [picture()])
    assert counting.calls == 3


def test_all_answers_are_read_in_one_call_and_as_one_by_one(processor: Any) -> None:
    texts = ["this is a green square</s>", "it</s>", "a", "on the square</s>"]
    counting = Counting(processor)
    together = Encoder(counting).answers(texts)
    assert counting.calls == 1
    assert together == [Encoder(processor).answers([text])[0] for text in texts]
    assert len({len(ids) for ids in together}) == 4  # nothing was padded
