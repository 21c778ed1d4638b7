"""mDPO's JSON: the path of an image, a prompt that is already in some model's chat template, and two answers.

Training puts every prompt into the chat template of its own model, so the written template has to go. It goes only
where the whole prompt is one question in a template known here; any other text stays, but for the image's tag. A text
in the column ``system`` stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from training.formats import trl
from training.formats.row import Message, Preference, parts_by_tags, question, untagged_answer, with_system
from training.formats.schema import Schema, Sign

#: Vicuna's with or without its own system sentence (LLaVA-1.5, Bunny), Phi-3's, and ChatML (Qwen).
_TEMPLATES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?:A chat between a curious (?:user|human) and an artificial intelligence assistant\. The assistant gives "
        r"helpful, detailed, and polite answers to the (?:user|human)'s questions\. )?USER: (?P<text>.*?) ?ASSISTANT:",
        r"(?:<\|system\|>\n(?P<system>.*?)<\|end\|>\n)?<\|user\|>\n(?P<text>.*?)<\|end\|>\n<\|assistant\|>\n?",
        r"(?:<\|im_start\|>system\n(?P<system>.*?)<\|im_end\|>\n)?<\|im_start\|>user\n(?P<text>.*?)<\|im_end\|>\n"
        r"<\|im_start\|>assistant\n?",
    )
)
#: Inside a text that a template left over: there are more turns than one.
_MARK = re.compile(r"USER:|ASSISTANT:|<\|(?:system|user|assistant|end|im_start|im_end)\|>")


def convert(row: Mapping[str, Any], images: int) -> Preference:
    if not isinstance(row["prompt"], str):  # TRL's rows, whose images are called as mDPO's
        return trl.convert(row, images)
    messages = with_system(without_template(row["prompt"]), row.get("system"))
    prompt = parts_by_tags(messages, images, fill=True)
    return Preference(prompt, untagged_answer(row["chosen"], "chosen"), untagged_answer(row["rejected"], "rejected"))


def without_template(text: str) -> list[Message]:
    """The messages of a templated prompt; a system text of the row's own stays, Vicuna's sentence goes.

    >>> without_template("USER: <image>\\nWhat is it? ASSISTANT:")
    [{'role': 'user', 'content': '<image>\\nWhat is it?'}]
    """
    for template in _TEMPLATES:
        match = template.fullmatch(text)
        if match and not any(_MARK.search(part) for part in match.groupdict().values() if part):
            system = match.groupdict().get("system")
            start = [{"role": "system", "content": system}] if system else []
            return [*start, *question(match["text"], "prompt")]
    return question(text, "prompt")


SCHEMA = Schema(
    name="mdpo",
    signs=(Sign(frozenset({"img_path", "prompt", "chosen", "rejected"})),),
    reads=("prompt", "chosen", "rejected", "system"),
    convert=convert,
)
