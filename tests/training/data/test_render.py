"""Messages as the chat template writes them: tools are shown by it, or the row is an error."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from training.data.render import render
from training.errors import DataError

PROMPT = [{"role": "user", "content": "what is this"}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("a red square", "a blue square"))
TOOLS = [{"type": "function", "function": {"name": "zoom", "parameters": {}}}]


@pytest.fixture
def with_tools(processor: Any) -> Any:
    made = copy.deepcopy(processor)
    made.chat_template = "{% if tools %}[{{ tools[0].function.name }}]{% endif %}" + made.chat_template
    return made


def test_an_answer_alone_is_rendered_as_it_is_beside_another(processor: Any) -> None:
    prompt, good, bad = render(processor, PROMPT, [GOOD, BAD], 0)
    assert render(processor, PROMPT, [GOOD], 0) == (prompt, good)
    assert render(processor, PROMPT, [BAD], 0) == (prompt, bad)


def test_tools_go_to_the_chat_template(with_tools: Any) -> None:
    without = render(with_tools, PROMPT, [GOOD, BAD], 0)
    assert render(with_tools, PROMPT, [GOOD, BAD], 0, TOOLS) == ("[zoom]" + without[0], *without[1:])


def test_tools_that_the_template_does_not_show_are_an_error(processor: Any) -> None:
    with pytest.raises(DataError, match="has tools, and the model's chat template does not show them; drop the column"):
        render(processor, PROMPT, [GOOD, BAD], 0, TOOLS)


def test_a_list_of_no_tools_is_none(with_tools: Any) -> None:
    assert render(with_tools, PROMPT, [GOOD], 0, []) == render(with_tools, PROMPT, [GOOD], 0)


def test_a_message_that_the_template_does_not_show_is_an_error(processor: Any) -> None:
    silent = copy.deepcopy(processor)
    silent.chat_template = silent.chat_template.replace(
        "in messages %}", "in messages if message.role != 'system' %}", 1
    )
    brief = [{"role": "system", "content": "be brief"}, *PROMPT]
    assert "be brief" in render(processor, brief, [GOOD], 0)[0]
    assert render(silent, PROMPT, [GOOD], 0) == render(processor, PROMPT, [GOOD], 0)
    with pytest.raises(DataError, match="does not show the system message; leave it out, or take another template"):
        render(silent, brief, [GOOD], 0)
