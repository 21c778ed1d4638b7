"""An engine that counts what it is asked, for whoever wants to know what a stage costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engines.protocol import Engine, Request, Response, Sampling

#: What is counted: of how many requests the prompts were told, and what their tokens are together.
REQUESTS, IMAGES, ANSWERS, TOKENS = "requests", "images", "answers", "tokens"
PROMPTS_TOLD, PROMPT_TOKENS = "prompts_told", "prompt_tokens"


@dataclass(frozen=True)
class OpenCounted:
    """Opens what ``open`` does. What is no engine is left as it is."""

    open: Callable[[], Any]

    def __call__(self) -> Any:
        model = self.open()
        return CountedEngine(model) if hasattr(model, "generate") else model

    def for_images(self, most: int | None) -> OpenCounted:
        """As ``pipeline.running.stage.ForImages``, if ``open`` wants to know."""
        fitted = getattr(self.open, "for_images", None)
        return self if fitted is None else OpenCounted(fitted(most))


class CountedEngine:
    """``engine``, whose ``stats`` also hold the counts. State: these."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counts: Counter[str] = Counter()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        self._counts[REQUESTS] += len(requests)
        self._counts[IMAGES] += sum(len(request.images) for request in requests)
        for response in self._engine.generate(requests, sampling):
            self._counts[ANSWERS] += len(response.completions)
            self._counts[TOKENS] += sum(completion.n_tokens or 0 for completion in response.completions)
            if response.prompt_tokens is not None:
                self._counts[PROMPTS_TOLD] += 1
                self._counts[PROMPT_TOKENS] += response.prompt_tokens
            yield response

    def stats(self) -> dict[str, int]:
        return dict(self._counts)
