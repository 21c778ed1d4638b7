"""Messages to the strings that TRL 1.16 trains on: the model's own chat template, the prompt as a common prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from pipeline.base.chat_template import unshown
from training.errors import DataError


def render(
    processor: Any,
    prompt: Sequence[Any],
    answers: Sequence[Sequence[Any]],
    n_images: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[str, ...]:
    """Render a row with the model's chat template into (prompt, answer, answer, ...) strings.

    The prompt is the longest common prefix of the rendered prompt (with the generation prompt) and of prompt + answer
    for every answer; each completion is the rest of its rendering. ``tools`` go to the template as they are. With a
    template that writes ``<user>``, ``<image>``, ``<assistant>`` and ``</s>``, one image and the texts "q", "a", "b":
    ``("<user><image>q<assistant>", "a</s>", "b</s>")``.

    Raises:
        DataError: a wrong number of image placeholders, or a template that does not show ``tools`` or a message.
    """
    head = structure(prompt, n_images)
    continues = head[-1]["role"] == "assistant"

    def rendering(messages: Sequence[Any], tools: Sequence[Any] | None = tools, **how: bool) -> str:
        text: str = processor.apply_chat_template(messages, tools=tools or None, tokenize=False, **how)
        return text

    start = rendering(head, add_generation_prompt=not continues, continue_final_message=continues)
    if tools and start == rendering(head, None, add_generation_prompt=not continues, continue_final_message=continues):
        raise DataError(
            "has tools, and the model's chat template does not show them; drop the column tools, or use a model whose "
            "template takes tools"
        )
    told = partial(rendering, add_generation_prompt=not continues, continue_final_message=continues)
    if (why := unshown(told, head, start)) is not None:
        raise DataError(why)
    wholes = [rendering(head + structure(answer, 0)) for answer in answers]
    for whole in wholes:
        start = "".join(a for a, _ in takewhile(lambda ab: ab[0] == ab[1], zip(start, whole, strict=False)))
    return start, *(whole[len(start) :] for whole in wholes)


def structure(messages: Sequence[Mapping[str, Any]], n_images: int) -> list[dict[str, Any]]:
    """Messages with every content as a list of parts; image placeholders stand before the first user text.

    >>> structure([{"role": "user", "content": "q"}], 1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'q'}]}]
    """
    result = []
    unplaced = n_images
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            placeholders = unplaced if message["role"] == "user" else 0
            unplaced -= placeholders
            content = [{"type": "image"}] * placeholders + [{"type": "text", "text": content}]
        else:  # Arrow fills the keys a part does not have with null
            content = [{key: value for key, value in part.items() if value is not None} for part in content or []]
        result.append({"role": message["role"], "content": content})
    placed = sum(part["type"] == "image" for message in result for part in message["content"])
    if placed != n_images:
        raise DataError(f"{placed} image placeholder(s) for {n_images} image(s); make the two numbers equal")
    return result
