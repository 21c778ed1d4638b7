"""Rows of a dataset to preference pairs, checked and tokenised once.

Text is rendered as TRL 1.16 does (``training.data.render``), so with ``add_bos=never`` both train on the same tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
from PIL import Image

from reward.forward.prompt import Prompt
from training.config import TrainConfig
from training.corruption import identity
from training.data.control import Control
from training.data.pairs import Pair, PairDataset, Skipped, decode, rejected_image
from training.data.prepared import Keep, in_memory, key_of
from training.data.render import render
from training.data.subset import Drawable, draw, few
from training.data.tokens import Encoder
from training.errors import DataError, PluginError

#: Rows that are read and tokenised at a time.
_ROWS = 64
#: Ties that an error names.
_NAMED = 5
_TIE = "chosen and rejected are the same text"


def prepare(
    dataset: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    keep: Keep = in_memory,
) -> PairDataset:
    """Tokenise every row once; also decodes every image once, so a broken one is found before training.

    A row longer than ``positions`` or ``config.max_length`` is an error, loses response tokens or is skipped, as
    ``config.too_long`` says; its prompt and image tokens are never cut. Ties are an error that counts them and names
    the first five, or skipped, as ``config.ties`` says. With ``config.limit`` and
    ``config.draw`` the result has the pairs that were drawn, some of them several times. A row without a similar image
    gives a pair without one; that all are such is an error. ``keep`` says where pairs that have been tokenised stay
    (``training.data.prepared``).

    Raises:
        DataError: a row cannot be trained on, or none is left; names the row.
        PluginError: a corruption that is not ours does not do what it must.
    """
    for column, wanted in (
        ("rejected_images", config.needs_corrupted and config.corruption.kind == "data"),
        ("similar_images", config.needs_similar),
        ("similar_chosen", config.needs_similar),
    ):
        if wanted and column not in dataset.column_names:
            raise DataError(
                f"the dataset has no column {column}, which "
                + (f"objective={config.objective}" if column != "rejected_images" else "corruption.kind=data")
                + f" reads; it has {', '.join(dataset.column_names)}"
            )
    if config.needs_corrupted:
        identity(config.corruption)  # a CLIP model that is not there shows now
    result = _prepare(dataset, processor, config, positions, advance, ("chosen", "rejected"), keep)
    if config.needs_corrupted and config.corruption.slot.open() is not None:
        _check_repeats(result)
    if config.needs_similar and not any(pair.similar is not None for pair in result.pairs):
        raise DataError(
            f"none of the {len(result.pairs)} pairs has a similar image (similar_images, similar_chosen), and "
            f"objective={config.objective} compares with them; fill the two columns, of a run of the pipeline with "
            "publish.similar, or use another objective"
        )
    if config.limit is not None:
        kept = few([pair.id for pair in result.pairs], config.limit, config.seed)
        result = replace(result, pairs=tuple(result.pairs[index] for index in kept))
    if config.draw is None:
        return result
    # A prompt is its words next to its images, whatever the rows call it.
    able = [Drawable((pair.prompt.images, pair.prompt.ids), pair.id, pair.chosen_text) for pair in result.pairs]
    return replace(result, pairs=tuple(result.pairs[index] for index in draw(able, config.draw, config.seed)))


def _check_repeats(dataset: PairDataset) -> None:
    """The first pair's corrupted image must be the same in every call: what is stored of the reference rests on it."""
    pair = dataset.pairs[0]
    if dataset.corrupted_image(pair, 0).tobytes() != dataset.corrupted_image(pair, 0).tobytes():
        raise PluginError(
            f"{pair.name}: {dataset.corruption.kind} gives other pixels in its second call; draw all chance from the "
            "rng that it is given"
        )


def prepare_chosen(
    dataset: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    keep: Keep = in_memory,
) -> PairDataset:
    """As ``prepare``, for rows of good answers: ``rejected`` is not read and ``rejected_ids`` are empty, whatever the
    objective. No forward pass accepts an empty answer, so nothing can be learnt from it."""
    plain = config.model_copy(update={"objective": "dpo", "objective_options": {}, "probe_image": False})
    return _prepare(dataset, processor, plain, positions, advance, ("chosen",), keep)


def _prepare(
    dataset: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None,
    advance: Callable[[int], None],
    sides: tuple[str, ...],
    keep: Keep,
) -> PairDataset:
    if not config.use_images:
        dataset = dataset.map(lambda row: {"images": []}, load_from_cache_file=False, keep_in_memory=True)

    def key() -> str | None:
        return key_of(dataset, processor, config, positions, sides)

    pairs, skipped = keep(key, lambda: _tokenise(dataset, processor, config, positions, advance, sides))
    return PairDataset(pairs, dataset, processor, config.corruption, config.seed, skipped)


def _tokenise(
    dataset: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None,
    advance: Callable[[int], None],
    sides: tuple[str, ...],
) -> Iterator[Pair | Skipped]:
    """Every row, in order; at the end the error of all ties, or that there is no pair."""
    limit = min((n for n in (positions, config.max_length) if n is not None), default=None)
    reader = _Reader(dataset, Encoder(processor, config.add_bos == "auto"), config, sides, Control.of(processor))
    ties: list[str] = []
    first: Skipped | None = None
    trainable = False
    for pair in reader.pairs():
        if not isinstance(pair, Pair):
            ties.append(pair.name)
        result = _fit(pair, limit, config.too_long) if isinstance(pair, Pair) else pair
        if isinstance(result, Pair):
            trainable = True
        else:
            first = first or result
        yield result
        advance(1)
    if ties and config.ties == "error":
        named = ", ".join(ties[:_NAMED]) + (", ..." if len(ties) > _NAMED else "")
        raise DataError(
            f"{ties[0]}: {_TIE}; a tie is not a preference. {len(ties)} of {len(dataset)} row(s) are ties ({named}); "
            "drop them, or set ties=skip, which leaves them out and counts them"
        )
    if not trainable and first is not None:
        raise DataError(f"all {len(dataset)} rows were skipped, the first: {first.name}: {first.reason}")


def _fit(pair: Pair, limit: int | None, too_long: str) -> Pair | Skipped:
    """The pair, shortened if that is allowed and needed; ``Skipped`` if nothing is left to compare."""
    prompts = [prompt for prompt in (pair.prompt, pair.corrupted, pair.similar) if prompt is not None]
    longest = max(len(prompt.ids) for prompt in prompts)
    answers = max(map(len, (pair.chosen_ids, pair.rejected_ids, pair.similar_ids)))
    if limit is None or longest + answers <= limit:
        return pair
    length = f"is {longest + answers} tokens long, the limit is {limit}"
    if too_long == "error":
        raise DataError(
            f"{pair.name}: {length}; set too_long=cut (shortens answers, never images) or too_long=skip, or drop the "
            "row"
        )
    room = limit - longest
    if too_long == "skip" or room < 1:
        return Skipped(pair.name, length if room >= 1 else f"{length} and its prompt alone takes {longest}")
    cut = replace(
        pair,
        chosen_ids=pair.chosen_ids[:room],
        rejected_ids=pair.rejected_ids[:room],
        similar_ids=pair.similar_ids[:room],
    )
    if cut.chosen_ids == cut.rejected_ids:
        return Skipped(pair.name, f"{length}; cut to {room} tokens both answers are the same")
    return _without_similar_tie(cut)


def _without_similar_tie(pair: Pair) -> Pair:
    """The pair, as one without a similar image where that has the same good answer: neither image prefers its own."""
    return replace(pair, similar=None, similar_ids=()) if pair.similar_ids == pair.chosen_ids else pair


@dataclass(frozen=True, slots=True)
class _Draft:
    """A pair without its answers' tokens, and the rendered answers by their columns."""

    pair: Pair
    answers: Mapping[str, str]


@dataclass(frozen=True)
class _Reader:
    """Turns rows into pairs; ``sides`` are the answers that are compared."""

    rows: datasets.Dataset
    encoder: Encoder
    config: TrainConfig
    sides: tuple[str, ...]
    control: Control

    def pairs(self) -> Iterator[Pair | Skipped]:
        """All pairs, in the order of the rows; a tie is none."""
        for start in range(0, len(self.rows), _ROWS):
            columns = self.rows[start : start + _ROWS]
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            drafts = [self._draft(index, row) for index, row in enumerate(rows, start)]
            tokens = iter(self._tokenise([draft for draft in drafts if isinstance(draft, _Draft)]))
            for draft in drafts:
                if isinstance(draft, Skipped):
                    yield draft
                else:
                    yield self._finish(draft.pair, {column: next(tokens) for column in draft.answers})

    def _draft(self, index: int, row: Mapping[str, Any]) -> _Draft | Skipped:
        config = self.config
        name = f"row {index}" + (f" (id {row['id']})" if row.get("id") is not None else "")
        if self._same(row):
            return Skipped(name, _TIE)
        self._check_control(name, row)
        images = self._decode(name, row.get("images"))
        if not images and len(config.branches) > 2:
            _refuse_text_only(name, config)
        messages = _without_images(row["prompt"]) if not config.use_images else row["prompt"]
        tools = row.get("tools")
        text, *answers = self._render(name, messages, {side: row[side] for side in self.sides}, len(images), tools)
        prompt = self._prompt(name, text, images)
        pair = Pair(
            row=index,
            id=_digest(row.get("id"), prompt.images, text, *answers),
            name=name,
            prompt=prompt,
            chosen_ids=(),
            rejected_ids=(),
            chosen_text=_text_of(row["chosen"]),
        )
        texts = dict(zip(self.sides, answers, strict=True))
        if config.needs_corrupted and images:
            pair = replace(pair, corrupted=self._corrupted_prompt(pair, text, len(images)))
        if config.needs_similar and (row["similar_images"] or row["similar_chosen"]):
            similar = self._decode(name, row["similar_images"])
            sides = {"similar_chosen": row["similar_chosen"], "chosen": row["chosen"]}
            text, texts["similar_chosen"], _ = self._render(name, messages, sides, len(similar), tools)
            shown = self._prompt(name, text, similar)
            _check_other(pair, "similar_images", shown, "one image would have to prefer two answers over each other")
            pair = replace(pair, similar=shown)
        return _Draft(pair, texts)

    def _same(self, row: Mapping[str, Any]) -> bool:
        """Whether the answers that are compared differ in control tokens alone, or not at all."""
        if len(self.sides) < 2:
            return False
        texts = [[(message["role"], _text(message)) for message in row[side] or []] for side in self.sides]
        if any(self.control.first(text) for side in texts for _, text in side):
            texts = [[(role, self.control.without(text).strip()) for role, text in side] for side in texts]
        return texts[0] == texts[1]

    def _check_control(self, name: str, row: Mapping[str, Any]) -> None:
        for message in row["prompt"]:
            if (token := self.control.first_media(_text(message))) is not None:
                raise DataError(
                    f"{name}: the prompt holds {token}, which the model reads as one more image; take it out, or drop "
                    "the row"
                )
        sides = (*self.sides, *(("similar_chosen",) if self.config.needs_similar else ()))
        for side in sides:
            for message in row[side] or []:
                if (token := self.control.first(_text(message))) is not None:
                    raise DataError(
                        f"{name}: the {side} response holds {token}, a control token of the model; take it out, or "
                        "drop the row"
                    )

    def _decode(self, name: str, items: Sequence[Mapping[str, Any]] | None) -> list[Image.Image]:
        most = self.config.max_image_bytes, self.config.max_image_pixels
        return [decode(item, name, number, *most) for number, item in enumerate(items or [])]

    def _corrupted_prompt(self, pair: Pair, text: str, count: int) -> Prompt:
        corruption = self.config.corruption
        if corruption.kind not in ("other", "data"):  # the others keep size, hence tokens
            return replace(pair.prompt, images=_names(pair.prompt.images, pair))
        if corruption.kind == "data" and len(self.rows[pair.row]["rejected_images"] or []) != count:
            raise DataError(f"{pair.name}: rejected_images must hold as many images as images ({count})")
        if corruption.kind == "data":
            images = self._decode(f"{pair.name}, rejected_images", self.rows[pair.row]["rejected_images"])
        else:
            images = [rejected_image(self.rows, pair, index, corruption, self.config.seed) for index in range(count)]
        prompt = self._prompt(pair.name, text, images)
        if corruption.kind == "data":
            _check_other(pair, "rejected_images", prompt, "neither is worse")
        return replace(prompt, images=_names(prompt.images, pair))

    def _render(
        self, name: str, prompt: Any, answers: Mapping[str, Any], images: int, tools: str | None
    ) -> tuple[str, ...]:
        for side, messages in answers.items():
            if not any(_text(message).strip() for message in messages or []):
                raise DataError(f"{name}: the {side} response is empty, so it has no tokens to train on; drop the row")
        functions = json.loads(tools) if tools else None
        try:
            return render(self.encoder.processor, prompt, list(answers.values()), images, functions)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        except Exception as error:
            raise DataError(f"{name}: the chat template cannot render it ({type(error).__name__}: {error})") from error

    def _prompt(self, name: str, text: str, images: Sequence[Image.Image]) -> Prompt:
        try:
            return self.encoder.prompt(text, images)
        except Exception as error:
            raise DataError(f"{name}: the processor cannot read it ({type(error).__name__}: {error})") from error

    def _tokenise(self, drafts: Sequence[_Draft]) -> list[tuple[int, ...]]:
        """The answers of all drafts, one after the other."""
        try:
            return self.encoder.answers([text for draft in drafts for text in draft.answers.values()])
        except Exception as error:
            if len(drafts) > 1:  # one by one, to find the row
                return [ids for draft in drafts for ids in self._tokenise([draft])]
            name = drafts[0].pair.name
            raise DataError(f"{name}: the processor cannot read it ({type(error).__name__}: {error})") from error

    def _finish(self, pair: Pair, answers: Mapping[str, tuple[int, ...]]) -> Pair | Skipped:
        for column, ids in answers.items():
            if not ids:
                raise DataError(f"{pair.name}: the {column} response has no tokens; drop the row")
        full = replace(
            pair,
            chosen_ids=answers["chosen"],
            rejected_ids=answers.get("rejected", ()),
            similar_ids=answers.get("similar_chosen", ()),
        )
        return Skipped(full.name, _TIE) if full.chosen_ids == full.rejected_ids else _without_similar_tie(full)


def _check_other(pair: Pair, column: str, prompt: Prompt, why: str) -> None:
    """Names of images are those of their pixels: a copy under another name, or encoded in another way, shows."""
    if prompt.images == pair.prompt.images:
        raise DataError(
            f"{pair.name}: {column} show the same pixels as images, so {why}; give other ones, or drop the row"
        )


def _refuse_text_only(name: str, config: TrainConfig) -> None:
    if not config.probes:
        raise DataError(
            f"{name}: has no image, and objective={config.objective} compares images; drop the row or use objective=dpo"
        )
    raise DataError(
        f"{name}: has no image, and probe_image=true measures every answer next to a corrupted one; drop the row or "
        "set probe_image=false"
    )


def _names(images: Sequence[str], pair: Pair) -> tuple[str, ...]:
    """Names of a pair's corrupted images, which it shares with no other pair."""
    return tuple(f"{image}|{pair.id}|{i}" for i, image in enumerate(images))


def _without_images(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": message["role"], "content": _text(message)} for message in messages]


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or [])


def _text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(map(_text, messages))


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
