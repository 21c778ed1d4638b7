"""How requests are put to vLLM, and its outputs and refusals read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.engines.protocol import Completion, Request, Response, Sampling, likeliest, trim

#: What vLLM says of an answer that it gave up; there is no text then, and none was meant.
_BROKEN = frozenset({"abort", "error"})


@dataclass(frozen=True)
class How:
    """How requests are put to vLLM, and its outputs read.

    With ``tokenizer``, vLLM returns token ids alone and each answer is decoded once, when it is finished: decoding
    every token as it comes, and its log-prob's token once more, takes a quarter of a small model's time.
    """

    sampling: Sampling
    tokenizer: Any | None

    def params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.sampling.n,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            stop=list(self.sampling.stop) or None,
            seed=request.seed,
            # With 0 it is the sampled token's own; without that there is no cumulative_logprob.
            logprobs=self.sampling.top_logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
            # What follows a prefix begins with a space or does not; many tokenizers tell only with the tokens before.
            detokenize=self.tokenizer is None or bool(request.prefix),
        )

    def response(self, request: Request, output: Any) -> Response:
        done = sorted(output.outputs, key=lambda completion: completion.index)
        if broken := {completion.finish_reason for completion in done} & _BROKEN:
            return Response(
                request.id, error_type="server_error", error=f"vLLM ended it with {'/'.join(sorted(broken))}"
            )
        answers = tuple(self._completion(request, completion) for completion in done)
        prompt = getattr(output, "prompt_token_ids", None) or ()
        return Response(request.id, answers, prompt_tokens=len(prompt) or None)

    def _completion(self, request: Request, output: Any) -> Completion:
        reason, text = output.finish_reason or "stop", output.text
        if self.tokenizer is not None and not request.prefix:
            # As vLLM does: the token that ended the answer is not part of its text.
            ids = list(output.token_ids)[:-1] if reason == "stop" else list(output.token_ids)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
        logprob = float(output.cumulative_logprob or 0.0)
        return Completion(trim(text, request), len(output.token_ids), reason, logprob, self._first(output))

    def _first(self, output: Any) -> tuple[tuple[str, float], ...] | None:
        """vLLM adds the sampled token to the likeliest ones, so there may be one too many."""
        if not self.sampling.top_logprobs or not output.logprobs:
            return None
        tokens = [(self._token(token, entry), float(entry.logprob)) for token, entry in output.logprobs[0].items()]
        return likeliest(tokens, self.sampling.top_logprobs)

    def _token(self, token: int, entry: Any) -> str:
        text: str = self.tokenizer.decode([token]) if self.tokenizer is not None else entry.decoded_token or ""
        return text


def conversation(request: Request) -> list[dict[str, Any]]:
    """The messages with structured content, a begun answer last; images stand before the first user text, where TRL
    puts them."""
    messages: list[dict[str, Any]] = []
    images = [{"type": "image"} for _ in request.images]
    for role, text in request.messages:
        parts = [*images, {"type": "text", "text": text}] if role == "user" else [{"type": "text", "text": text}]
        if role == "user":
            images = []
        messages.append({"role": role, "content": parts})
    if request.prefix:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": request.prefix}]})
    return messages


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises at a request that it cannot serve."""
    from vllm.exceptions import VLLMClientError

    return (VLLMClientError, ValueError, TypeError)


def refusal(request: Request, error: Exception) -> Response:
    text = first_line(error)
    too_long = any(word in text.lower() for word in ("longer than", "maximum model length", "context length"))
    return Response(request.id, error_type="prompt_too_long" if too_long else "bad_request", error=text)


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
