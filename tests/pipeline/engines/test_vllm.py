"""vLLM with the built-in model. One engine for the whole session; see ``tests/conftest.py``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engines.scene_requests import SAMPLING, ask, request

from pipeline.base.errors import EngineError
from pipeline.engines import vllm as module
from pipeline.engines.protocol import Completion, Response, Sampling
from pipeline.engines.vllm import How, OpenVllm, conversation
from pipeline.sampling.continuation import beginning


def test_images_stand_before_the_first_text_of_the_user() -> None:
    messages = conversation(request(0, messages=(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))))
    kinds = [[part["type"] for part in message["content"]] for message in messages]
    assert kinds == [["text"], ["image", "text"], ["text"], ["text"]]


def test_a_begun_answer_is_the_last_message() -> None:
    messages = conversation(request(0, prefix="The image"))
    assert messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": "The image"}]}


def test_a_folder_without_a_model_is_named_before_vllm_is_imported(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no config\.json"):
        OpenVllm(str(tmp_path))()


def test_no_room_is_made_for_videos(vllm_engine: Any) -> None:
    limits = vllm_engine._runner._llm.llm_engine.vllm_config.model_config.multimodal_config
    assert [limits.get_limit_per_prompt(kind) for kind in ("video", "audio")] == [0, 0]
    assert limits.get_limit_per_prompt("image") > 1


def test_every_request_gets_n_completions(vllm_engine: Any) -> None:
    answers = ask(vllm_engine, [request(i) for i in range(6)])
    for answer in answers.values():
        assert answer.error_type is None and len(answer.completions) == 4
        assert len({c.text for c in answer.completions}) > 1
        for made in answer.completions:
            assert 0 < made.n_tokens <= 24 and made.logprob < 0 and made.finish_reason in ("stop", "length")
            assert (made.finish_reason == "length") <= (made.n_tokens == 24)


def test_the_same_seeds_give_the_same_answers_whatever_was_asked_before(vllm_engine: Any) -> None:
    requests = [request(i) for i in range(4)]
    first = ask(vllm_engine, requests)
    ask(vllm_engine, [request(i, seed=i) for i in range(2, 9)])
    assert ask(vllm_engine, requests) == first
    other = ask(vllm_engine, [request(i, seed=i) for i in range(4)])
    assert all(other[key] != first[key] for key in first)


def test_sample_i_of_a_request_is_drawn_from_seed_plus_i(vllm_engine: Any) -> None:
    # The reason why seeds are hashed: the neighbouring seed repeats three of four samples.
    answers = ask(vllm_engine, [request(0, id="a", seed=1000), request(0, id="b", seed=1001)])
    a, b = ([c.text for c in answers[key].completions] for key in "ab")
    assert a[1:] == b[:3]


def test_bad_requests_are_answered_with_a_reason_and_harm_no_other(vllm_engine: Any) -> None:
    good = request(0)
    bad = [
        request(1, id="truncated", images=(good.images[0][:100],)),
        request(1, id="no image", images=(b"",)),
        request(1, id="long", messages=(("user", "Describe the image. " * 400),)),
        request(1, id="long in tokens", messages=(("user", "a " * 600),)),
        request(1, id="empty", messages=(("user", " "),)),
        # Found to be too long after its image was looked at, which is that of the good one.
        request(0, id="long with its image", messages=(("user", "a " * 490),)),
    ]
    answers = ask(vllm_engine, [*bad, good])
    assert {key: answer.error_type for key, answer in answers.items()} == {
        "truncated": "unreadable_image",
        "no image": "unreadable_image",
        "long": "prompt_too_long",
        "long in tokens": "prompt_too_long",
        "empty": "empty_prompt",
        "long with its image": "prompt_too_long",
        "r0": None,
    }
    assert all(answers[r.id].error for r in bad)
    assert answers["r0"] == ask(vllm_engine, [good])["r0"]


def test_a_shard_begins_with_empty_caches(vllm_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, emptied = vllm_engine._runner._llm.llm_engine, []
    for name in ("reset_prefix_cache", "reset_encoder_cache"):
        original = getattr(engine, name)
        monkeypatch.setattr(
            engine, name, lambda *args, name=name, original=original: (emptied.append(name), original(*args))[1]
        )
    ask(vllm_engine, [request(0)])
    assert emptied == ["reset_prefix_cache", "reset_encoder_cache"]


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_vllm_gave_up_is_no_answer(reason: str) -> None:
    output = SimpleNamespace(outputs=[SimpleNamespace(index=0, finish_reason=reason, text="", token_ids=[])])
    response = How(Sampling(n=1), None).response(request(0), output)
    assert (response.error_type, response.error) == ("server_error", f"vLLM ended it with {reason}")


def test_greedy_ignores_the_seed(vllm_engine: Any) -> None:
    greedy = Sampling(n=1, temperature=0.0, max_tokens=8)
    a, b = (ask(vllm_engine, [request(0, seed=seed)], greedy)["r0"] for seed in (1, 2))
    assert a == b


def test_a_reader_that_stops_leaves_the_engine_clean(vllm_engine: Any) -> None:
    responses = vllm_engine.generate([request(i) for i in range(4)], SAMPLING)
    next(responses)
    responses.close()
    assert ask(vllm_engine, [request(7)])["r7"].error_type is None


class Letters:
    """A tokenizer whose token 0 is "a"."""

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(ord("a") + token) for token in ids)


def test_the_alternatives_of_the_first_token_are_decoded_and_no_more_than_asked_for() -> None:
    tokens = {
        i: SimpleNamespace(logprob=value, decoded_token=f"t{i}") for i, value in enumerate((-3.0, -0.1, -math.inf, -9))
    }
    completion = SimpleNamespace(
        index=0, text="b", token_ids=[1], finish_reason="length", cumulative_logprob=-0.1, logprobs=[tokens, tokens]
    )
    output = SimpleNamespace(outputs=[completion])

    def first(top_logprobs: int, tokenizer: Any) -> Any:
        how = How(Sampling(n=1, top_logprobs=top_logprobs), tokenizer)
        return how.response(request(0), output).completions[0].first

    assert first(2, Letters()) == (("b", -0.1), ("a", -3.0))
    assert first(2, None) == (("t1", -0.1), ("t0", -3.0))
    assert first(0, Letters()) is None


def test_the_model_says_how_likely_yes_and_no_are(vllm_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request(i, messages=(("user", "Is there a sun in the image?"),)) for i in range(4)]
    greedy = Sampling(n=1, temperature=0.0, max_tokens=1, top_logprobs=20)
    late = ask(vllm_engine, requests, greedy)
    for answer in late.values():
        (made,) = answer.completions
        assert made.first is not None and len(made.first) == 20
        assert made.first[0][0].strip() == made.text and made.first[0][1] == pytest.approx(made.logprob, abs=1e-5)
        assert sum(math.exp(logprob) for text, logprob in made.first if text.strip() in ("Yes", "No")) > 0.9
    monkeypatch.setattr(vllm_engine, "_spec", replace(vllm_engine._spec, late_decode=False))
    early = ask(vllm_engine, requests, greedy)
    assert [c.first[0] for a in early.values() for c in a.completions if c.first] == [
        c.first[0] for a in late.values() for c in a.completions if c.first
    ]


def test_what_follows_a_begun_answer_is_not_decoded_alone_and_keeps_its_space() -> None:
    completion = SimpleNamespace(
        index=0, text=" b ", token_ids=[1], finish_reason="length", cumulative_logprob=-0.1, logprobs=None
    )
    output = SimpleNamespace(outputs=[completion])

    def text(**changes: Any) -> str:
        return How(Sampling(n=1), Letters()).response(request(0, **changes), output).completions[0].text

    assert (text(), text(prefix="a")) == ("b", " b")
    completion.text = "not looked at"
    assert text() == "b"


@pytest.mark.parametrize("late", [True, False])
def test_the_rest_of_an_answer_follows_from_its_beginning(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr(vllm_engine, "_spec", replace(vllm_engine._spec, late_decode=late))
    greedy = Sampling(n=1, temperature=0.0, max_tokens=48)
    whole = {key: answer.completions[0] for key, answer in ask(vllm_engine, [request(i) for i in range(6)]
             , greedy).items()}  # fmt: skip
    begun = [request(i, prefix=beginning(whole[f"r{i}"].text, 0.5)) for i in range(6)]
    rest = {key: answer.completions[0] for key, answer in ask(vllm_engine, begun, greedy).items()}
    for opening in begun:
        full, ending = whole[opening.id], rest[opening.id]
        assert opening.prefix and opening.prefix + ending.text == full.text
        assert ending.n_tokens < full.n_tokens and ending.logprob >= full.logprob
    blind = ask(vllm_engine, [replace(opening, images=()) for opening in begun], greedy)
    assert all(answer.error_type is None for answer in blind.values())
    assert any(blind[key].completions[0].text != rest[key].text for key in rest)


def test_a_template_that_does_not_show_the_system_message_refuses_the_request(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = (("system", "Be brief."), ("user", "What is it?"))
    asked = [request(0, images=(), messages=brief), request(1, images=(), messages=brief[1:])]
    template = "{% for m in messages if m.role != 'system' %}{{ m.content[-1].text }}{% endfor %}"
    monkeypatch.setattr(vllm_engine, "_spec", replace(vllm_engine._spec, chat_template=template))
    first, second = ask(vllm_engine, asked, Sampling(n=1)).values()
    assert first.error_type == "bad_request" and "does not show the system message" in (first.error or "")
    assert second.error_type is None


def test_a_template_that_changes_a_begun_answer_refuses_the_request(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content[-1].text | upper }}{% endfor %}"
    monkeypatch.setattr(vllm_engine, "_spec", replace(vllm_engine._spec, chat_template=template))
    (answer,) = ask(vllm_engine, [request(0, images=(), prefix="The image")], Sampling(n=1)).values()
    assert answer.error_type == "bad_request" and "chat template" in (answer.error or "")


def test_asking_for_alternatives_changes_nothing_else(vllm_engine: Any) -> None:
    requests = [request(i) for i in range(4)]
    plain = ask(vllm_engine, requests)
    more = ask(vllm_engine, requests, replace(SAMPLING, top_logprobs=5))
    assert all(c.first is None for answer in plain.values() for c in answer.completions)
    assert {
        key: replace(answer, completions=tuple(replace(c, first=None) for c in answer.completions))
        for key, answer in more.items()
    } == plain


@pytest.mark.parametrize(
    "sampling", [SAMPLING, Sampling(n=2, max_tokens=4), Sampling(n=2, max_tokens=40, stop=("There",))]
)
def test_decoding_late_gives_the_same_text(
    vllm_engine: Any, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    requests = [request(i) for i in range(6)]
    late = ask(vllm_engine, requests, sampling)
    monkeypatch.setattr(vllm_engine, "_spec", replace(vllm_engine._spec, late_decode=False))
    assert ask(vllm_engine, requests, sampling) == late
    reasons = {c.finish_reason for answer in late.values() for c in answer.completions}
    assert reasons & {"stop"} or sampling.max_tokens == 4
    # The control: a decoder that forgets the rule about the last token is found out.
    monkeypatch.setattr(module.How, "response", lambda self, r, output: Response(r.id, tuple(
        Completion(str(made.text)[1:], len(made.token_ids), made.finish_reason, float(made.cumulative_logprob))
        for made in output.outputs
    )))  # fmt: skip
    assert ask(vllm_engine, requests, sampling) != late
