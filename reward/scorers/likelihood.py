"""How likely a text is to a vision-language model: the mean log-prob of its tokens, given the images and the prompt.

With the model that is to be trained, this is DPO's log p_ref(text) divided by the number of tokens. Where chosen and
rejected texts differ in it whatever they say, the pairs differ in style.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward.models.clip_models import digest
from reward.models.conversation import BadConversation, Conversation, processor_messages
from reward.scorers.by_conversation import check_options, score_each
from reward.scorers.protocol import Row, Scores

if TYPE_CHECKING:
    from reward.forward.rounding import Logits
    from reward.models.shared_prompts import Answers

#: Tokens whose logits are held at a time.
_HEAD_CHUNK = 1024
#: What decides about a log-prob; documentation and training logs do not.
_IDENTITY_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


class LikelihoodScorer:
    """Score ``likelihood``: mean log-prob per token, in nats; at most 0.

    The tokens are those that the model's chat template puts behind the prompt: the text, and how it ends. Null where
    they and the prompt have more tokens than the model's context: nothing is cut. Every distinct conversation is
    scored once.

    Args:
        model: a folder or hub id of a model that transformers opens with ``AutoModelForImageTextToText``. Weights are
            read from safetensors only, and no code of a checkpoint is run.
        batch_size: conversations per forward pass, of similar lengths; where prompts are shared, a pass has no more
            tokens than so many by themselves.
        dtype: ``"auto"`` is float32.
        device: ``"auto"`` takes a GPU when there is one.
        share_prompt: run images, vision tower and prompt once for all answers, where the model can
            (``reward.models.shared_prompts``); of the first conversations it is tried that no value changes.

    Raises:
        ValueError: the folder holds no such model, or an option is out of range.
    """

    name = "likelihood"

    def __init__(
        self,
        model: str | Path,
        revision: str | None = None,
        batch_size: int = 8,
        dtype: str = "auto",
        device: str = "auto",
        share_prompt: bool = True,
    ) -> None:
        self.model, self.revision, self.share_prompt = str(model), revision, share_prompt
        self.batch_size, self.dtype, self.device = batch_size, dtype, device
        self._tried = False  # whether shared prompts gave the values of prompts alone
        check_options(batch_size, dtype)
        if Path(self.model).is_dir():
            _check(Path(self.model))  # now, not when the first row comes

    @cached_property
    def version(self) -> str:
        """What the values depend on. A local folder counts by its content, not by where it lies."""
        folder, dtype = Path(self.model), "" if self.dtype == "auto" else f":{self.dtype}"
        if not folder.is_dir():
            return f"2:{self.model}@{self.revision or 'main'}{dtype}"
        decide = (path for path in folder.iterdir() if path.is_file() and path.suffix in _IDENTITY_SUFFIXES)
        # Since 2, prompts are shared: the last digits are others.
        return f"2:{digest(sorted(decide))}{dtype}"

    def score(self, rows: Sequence[Row]) -> Scores:
        """
        Raises:
            ValueError: a row cannot be scored; the message names row and candidate.
        """
        return {self.name: score_each(rows, self._means, "log-prob")}

    @cached_property
    def _backbone(self) -> tuple[Any, Any]:
        """The model in evaluation mode, and what reads for it."""
        import torch

        from reward.models.backend import DTYPES
        from reward.models.network import open_backbone

        where = torch.device(self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        dtype = DTYPES["float32" if self.dtype == "auto" else self.dtype]
        model, reader = open_backbone(self.model, True, dtype, {"revision": self.revision} if self.revision else {})
        if reader.tokenizer is reader.processor:
            raise ValueError(f"model={self.model!r} reads no images; name a vision-language model")
        return model.to(where).eval(), reader

    def _means(self, conversations: Sequence[Conversation]) -> list[float | None]:
        import torch

        from reward.forward.rounding import watch
        from reward.models import shared_prompts

        model, reader = self._backbone
        with torch.inference_mode():
            if not self._shares:
                means = self._alone(conversations, range(len(conversations)))
                return [means.get(i) for i in range(len(conversations))]
            lengths: dict[int, int] = {}
            with watch(model) if not self._tried else nullcontext() as logits:
                means, reason = shared_prompts.measure(
                    *(reader, conversations, self.batch_size),
                    lambda groups: self._packed(conversations, groups, lengths),
                    lambda places: self._alone(conversations, places),
                    None if logits is None else partial(_difference, lengths, logits, model.dtype),
                )
        self._tried |= bool(means)
        if reason is not None:
            self.__dict__["_shares"] = False
            shared_prompts.warn(self.name, reason)
        return [means.get(i) for i in range(len(conversations))]

    @cached_property
    def _shares(self) -> bool:
        """Whether the model can run a prompt once for several answers; it is then made ready to do so."""
        from reward.forward.shareable import behind_head, enable, why_not

        model, _ = self._backbone
        if not self.share_prompt or why_not(model) is not None or behind_head(model) is not None:
            return False
        enable(model)
        return True

    def _packed(
        self, conversations: Sequence[Conversation], groups: Sequence[Answers], lengths: dict[int, int]
    ) -> dict[int, float]:
        """The means by place; ``lengths`` gets the numbers of tokens."""
        from reward.forward.token_logps import Forward, token_logps
        from reward.models import shared_prompts

        model, reader = self._backbone
        packed = []
        places: list[int] = []
        for answers in groups:
            for place in answers.places:
                lengths[place] = _answer_tokens(reader, conversations[place], place)
            kept = [i for i, place in enumerate(answers.places) if lengths[place]]
            if kept:
                answers = replace(
                    answers, places=tuple(answers.places[i] for i in kept), ids=tuple(answers.ids[i] for i in kept)
                )
                begins = [len(ids) - lengths[place] for place, ids in zip(answers.places, answers.ids, strict=True)]
                packed.append((answers, *answers.rows(begins)))
                places += answers.places
        if not packed:
            return {}
        layout, logps = token_logps(
            model, shared_prompts.batch(reader, packed), Forward(dtype=model.dtype, head_chunk=_HEAD_CHUNK)
        )
        of_answers = logps[layout.entries.to(logps.device)].double()
        ends = layout.owners.bincount(minlength=layout.sequences).cumsum(0).tolist()
        spans = ((place, end - lengths[place], end) for place, end in zip(places, ends, strict=True))
        return {place: float(of_answers[first:end].mean()) for place, first, end in spans}

    def _alone(self, conversations: Sequence[Conversation], places: Sequence[int]) -> dict[int, float]:
        from reward.models.backend import batches

        means: dict[int, float] = {}
        chosen = [conversations[place] for place in places]
        for batch in batches(chosen, self.batch_size):
            try:
                measured = self._batch(chosen, batch)
            except BadConversation as error:
                raise BadConversation(places[error.index], error.reason) from error
            means |= {places[i]: value for i, value in measured.items()}
        return means

    def _batch(self, conversations: Sequence[Conversation], batch: Sequence[int]) -> dict[int, float]:
        """The means by place; of those that do not fit, and of texts without a token, none."""
        import torch

        from reward.forward.token_logps import target_logps

        model, reader = self._backbone
        try:
            inputs = reader.read([conversations[i] for i in batch])
            lengths = {at: _answer_tokens(reader, conversations[batch[at]], at) for at in inputs.kept}
        except BadConversation as error:
            raise BadConversation(batch[error.index], error.reason) from error
        ends = [int(last) + 1 for last in inputs.last]
        # (row, place of the first token of the text, and of what stands behind its last)
        spans = [(row, end - lengths[at], end) for row, (at, end) in enumerate(zip(inputs.kept, ends, strict=True))]
        spans = [span for span in spans if span[1] < span[2]]
        if not spans:
            return {}
        tensors = {
            name: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
            for name, value in inputs.tensors.items()
        }
        # What predicts a token is the place before it. Logits of the other places would be most of the memory.
        low, high = min(first for _, first, _ in spans) - 1, max(end for _, _, end in spans) - 1
        keep = torch.arange(low, high, device=model.device)
        logits = model(**tensors, logits_to_keep=keep, use_cache=False).logits
        if logits.shape[1] != len(keep):  # a model that does not know the option gives those of every place
            logits = logits[:, low:high]
        means = {}
        for row, first, end in spans:
            predicted, truth = logits[row, first - 1 - low : end - 1 - low], tensors["input_ids"][row, first:end]
            means[batch[inputs.kept[row]]] = float(target_logps(predicted, truth, "mean"))
        return means


def _answer_tokens(reader: Any, conversation: Conversation, index: int) -> int:
    """How many tokens stand behind those of the prompt. Counted in the rendered text, in which an image has one
    placeholder: all of them stand in the prompt.

    Raises:
        BadConversation: the template refuses the messages.
    """
    prompt = Conversation(conversation.images, conversation.messages[:-1])
    texts = []
    for part, answers in ((prompt, True), (conversation, False)):
        try:
            texts.append(
                reader.processor.apply_chat_template(
                    processor_messages(part), tokenize=False, add_generation_prompt=answers
                )
            )
        except Exception as error:  # a template may raise what it likes, for instance at a system message
            raise BadConversation(index, f"chat template: {type(error).__name__}: {error}") from error
    start, whole = (reader.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    # Not the length of the prompt: its last token may be another one where a text goes on.
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(start, whole, strict=False)))
    return len(whole) - common


def _difference(
    lengths: Mapping[int, int], logits: Logits, dtype: Any, packed: Mapping[int, float], alone: Mapping[int, float]
) -> str | None:
    """Why means of packed conversations are not those of the same ones alone; None where rounding explains it."""
    from reward.forward.rounding import Difference, judge

    gaps = [
        Difference(f"conversation {place}", lengths[place], (packed[place] - value) * lengths[place])
        for place, value in alone.items()
    ]
    verdict = judge(gaps, logits.largest, dtype) if gaps else None
    return None if verdict is None or verdict.rounding else f"log-probs were apart by {verdict.told}"


def _check(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sees = "vision_config" in config
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"model={str(folder)!r}: cannot read config.json ({error})") from error
    if not sees:
        raise ValueError(f"model={str(folder)!r} has no vision_config; name a vision-language model")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"model={str(folder)!r} has no *.safetensors; save it again with save_pretrained")
