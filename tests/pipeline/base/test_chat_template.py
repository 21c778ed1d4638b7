"""A message that a model's chat template leaves out is told, whatever it is made of; trimmed ones are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jinja2 import Environment

from pipeline.base.chat_template import unshown

LOOP = "{%% for m in messages %%}%s{%% endfor %%}"
TEXTS = "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
SYSTEM = {"role": "system", "content": [{"type": "text", "text": " Be brief.\n"}]}
USER = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "<think>Hm.</think>A cup."}]}


def rendering(template: str) -> Callable[[list[Any]], str]:
    made = Environment().from_string(template)
    return lambda messages: made.render(messages=messages)


def told(template: str, *messages: Any) -> str | None:
    render = rendering(template)
    return unshown(render, messages, render(list(messages)))


@pytest.mark.parametrize(
    "each",
    [
        f"<{{{{ m.role }}}}>{TEXTS}",
        f"{{% set t %}}{TEXTS}{{% endset %}}{{{{ t | trim | upper }}}}",
        # Reasoning of earlier turns may go.
        f"{{% set t %}}{TEXTS}{{% endset %}}{{{{ t.split('</think>')[-1] | trim }}}}",
    ],
)
def test_what_is_shown_in_any_way_is_no_fault(each: str) -> None:
    assert told(LOOP % each, SYSTEM, USER, ANSWER, USER) is None


@pytest.mark.parametrize(
    ("each", "role"),
    [
        (f"{{% if m.role != 'system' %}}{TEXTS}{{% endif %}}", "system"),
        (f"{{% if m.role != 'user' %}}{TEXTS}{{% endif %}}", "user"),
        # Made for plain strings: of a list of parts nothing is written.
        ("{% if m.content is string %}{{ m.content }}{% endif %}", "system"),
        (f"{{% if loop.last %}}{TEXTS}{{% endif %}}", "system"),
        (f"{{% if m.role == 'system' or loop.last %}}{TEXTS}{{% endif %}}", "user"),
    ],
)
def test_what_is_left_out_is_told_with_its_role(each: str, role: str) -> None:
    first = {"role": "user", "content": "An earlier question."} if role == "user" else USER
    why = told(LOOP % each, SYSTEM, first, ANSWER, USER)
    assert why is not None and f"does not show the {role} message" in why
    assert ("leave it out" in why) == (role == "system")


def test_plain_texts_and_empty_ones() -> None:
    users = LOOP % "{% if m.role == 'user' %}{{ m.content }}{% endif %}"
    assert told(users, {"role": "system", "content": "  "}, {"role": "user", "content": "Hi."}) is None
    assert told(users, {"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi."}) is not None
