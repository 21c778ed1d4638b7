"""A dataset of preference pairs, checked and tokenised once.

Text is rendered as TRL 1.16 does (``training.render``), so both train on the same tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
from PIL import Image

from pipeline import images as encoded
from training.config import Corruption, TrainConfig
from training.corruption import corrupt, identity, other_index
from training.errors import DataError
from training.render import render


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question next to its images, as the model reads it.

    ``images`` are content hashes, in the order of the placeholders. ``keys`` are the processor's further per-token
    outputs (``mm_token_type_ids``, ...), each as long as ``ids``; ``grids`` the (t, h, w) patches per image of models
    with multimodal RoPE, else empty.
    """

    ids: tuple[int, ...]
    images: tuple[str, ...]
    keys: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    grids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair as token ids; the images stay encoded in the dataset.

    ``id`` is a hash of the whole row, so it is stable when rows move; ``name`` is what errors call the row.
    ``corrupted`` is the prompt next to the rejected image, ``similar`` the prompt next to another image whose own good
    answer is ``similar_ids`` (SymMPO); None and empty where the objective does not read them.
    """

    row: int
    id: str
    name: str
    prompt: Prompt
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_text: str = ""
    corrupted: Prompt | None = None
    similar: Prompt | None = None
    similar_ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Length of the longest sequence of the pair."""
        longest = max(len(self.chosen_ids), len(self.rejected_ids))
        return len(self.prompt.ids) + longest


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained on, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PairDataset:
    """Tokenised pairs, and what is needed to read their images. ``pairs[i].row`` is the row in ``rows``."""

    pairs: tuple[Pair, ...]
    rows: datasets.Dataset
    processor: Any
    corruption: Corruption
    seed: int
    skipped: tuple[Skipped, ...] = ()

    def image(self, pair: Pair, index: int) -> Image.Image:
        """The pair's ``index``-th image, decoded, RGB."""
        return _decode(self.rows[pair.row]["images"][index], pair.name, index)

    def similar(self, pair: Pair, index: int) -> Image.Image:
        """The ``index``-th image of the similar prompt."""
        return _decode(self.rows[pair.row]["similar_images"][index], pair.name, index)

    def corrupted(self, pair: Pair, index: int) -> Image.Image:
        """The rejected image; every call returns the same pixels."""
        return _rejected(self.rows, pair.row, index, pair.id, pair.name, pair.chosen_text, self.corruption, self.seed)


def _rejected(
    rows: datasets.Dataset, row: int, index: int, pair: str, name: str, text: str, corruption: Corruption, seed: int
) -> Image.Image:
    if corruption.kind == "data":
        return _decode(rows[row]["rejected_images"][index], f"{name}, rejected_images", index)
    if corruption.kind == "other":
        other = _other_row(rows, row, pair, index, seed)
        images = rows[other]["images"]
        return _decode(images[index % len(images)], f"row {other}", index % len(images))
    return corrupt(_decode(rows[row]["images"][index], name, index), corruption, seed, pair, index, text)


def _other_row(rows: datasets.Dataset, row: int, pair: str, index: int, seed: int) -> int:
    own = _content(rows[row]["images"][index])
    for attempt in range(len(rows) - 1):
        other = other_index(seed, pair, index, len(rows), row, attempt)
        images = rows[other]["images"]
        if images and _content(images[index % len(images)]) != own:
            return other
    raise DataError(f"row {row}: no other row has another image; use another corruption.kind")


def _content(item: Mapping[str, Any]) -> str:
    return hashlib.blake2b(encoded.load(item), digest_size=16).hexdigest()


def prepare(
    dataset: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> PairDataset:
    """Tokenise every row once; also decodes every image once, so a broken one is found before training.

    A row longer than ``positions`` or ``config.max_length`` is an error, loses response tokens or is skipped, as
    ``config.too_long`` says; its prompt and image tokens are never cut.

    Raises:
        DataError: a row cannot be trained on, or none is left; names the row.
    """
    if not config.use_images:
        dataset = dataset.map(lambda row: {"images": []}, load_from_cache_file=False, keep_in_memory=True)
    needed = {"corrupted": config.needs_corrupted, "similar": config.objective == "symmpo"}
    for column, wanted in (
        ("rejected_images", config.needs_corrupted and config.corruption.kind == "data"),
        ("similar_images", needed["similar"]),
        ("similar_chosen", needed["similar"]),
    ):
        if wanted and column not in dataset.column_names:
            raise DataError(
                f"the dataset has no column {column}, which "
                + (f"objective={config.objective}" if column != "rejected_images" else "corruption.kind=data")
                + f" reads; it has {', '.join(dataset.column_names)}"
            )
    limit = min((n for n in (positions, config.max_length) if n is not None), default=None)
    if config.needs_corrupted:
        identity(config.corruption)  # a CLIP model that is not there shows now
    reader = _Reader(dataset, processor, config)
    pairs: list[Pair] = []
    skipped: list[Skipped] = []
    for index in range(len(dataset)):
        found = _fit(reader.pair(index), limit, config.too_long)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            pairs.append(found)
        advance(1)
    if not pairs:
        raise DataError(f"all {len(dataset)} rows were skipped, the first: {skipped[0].name}: {skipped[0].reason}")
    return PairDataset(tuple(pairs), dataset, processor, config.corruption, config.seed, tuple(skipped))


def _fit(pair: Pair, limit: int | None, too_long: str) -> Pair | Skipped:
    """The pair, shortened if that is allowed and needed; ``Skipped`` if nothing is left to compare."""
    prompts = [prompt for prompt in (pair.prompt, pair.corrupted, pair.similar) if prompt is not None]
    longest = max(len(prompt.ids) for prompt in prompts)
    answers = max(map(len, (pair.chosen_ids, pair.rejected_ids, pair.similar_ids)))
    if limit is None or longest + answers <= limit:
        return pair
    said = f"is {longest + answers} tokens long, the limit is {limit}"
    if too_long == "error":
        raise DataError(
            f"{pair.name}: {said}; set too_long=cut (shortens answers, never images) or too_long=skip, or drop the row"
        )
    room = limit - longest
    if too_long == "skip" or room < 1:
        return Skipped(pair.name, said if room >= 1 else f"{said} and its prompt alone takes {longest}")
    cut = replace(
        pair,
        chosen_ids=pair.chosen_ids[:room],
        rejected_ids=pair.rejected_ids[:room],
        similar_ids=pair.similar_ids[:room],
    )
    if cut.chosen_ids == cut.rejected_ids:
        return Skipped(pair.name, f"{said}; cut to {room} tokens both answers are the same")
    return cut


@dataclass(frozen=True)
class _Reader:
    """Turns rows into pairs."""

    rows: datasets.Dataset
    processor: Any
    config: TrainConfig

    def pair(self, index: int) -> Pair:
        row = self.rows[index]
        name = f"row {index}" + (f" (id {row['id']})" if row.get("id") is not None else "")
        images = [_decode(item, name, number) for number, item in enumerate(row.get("images") or [])]
        config = self.config
        if not images and config.objective != "dpo":
            raise DataError(
                f"{name}: has no image, and objective={config.objective} compares images; drop the row or use "
                "objective=dpo"
            )
        messages = _without_images(row["prompt"]) if not config.use_images else row["prompt"]
        text, chosen, rejected = self._rendered(name, messages, row["chosen"], row["rejected"], len(images))
        prompt = self._prompt(name, text, images)
        identity = _digest(row.get("id"), prompt.images, text, chosen, rejected)
        pair = Pair(
            row=index,
            id=identity,
            name=name,
            prompt=prompt,
            chosen_ids=self._answer(name, "chosen", chosen),
            rejected_ids=self._answer(name, "rejected", rejected),
            chosen_text=_text_of(row["chosen"]),
        )
        if pair.chosen_ids == pair.rejected_ids:
            raise DataError(f"{name}: chosen and rejected are the same text; a tie is not a preference, drop the row")
        if config.needs_corrupted and images:
            pair = replace(pair, corrupted=self._corrupted(pair, text, len(images)))
        if config.objective == "symmpo":
            pair = self._with_similar(pair, row, messages)
        return pair

    def _corrupted(self, pair: Pair, text: str, count: int) -> Prompt:
        if self.config.corruption.kind not in ("other", "data"):  # the others keep size, hence tokens
            return replace(pair.prompt, images=_names(pair.prompt.images, pair))
        if self.config.corruption.kind == "data" and len(self.rows[pair.row]["rejected_images"] or []) != count:
            raise DataError(f"{pair.name}: rejected_images must hold as many images as images ({count})")
        images = [
            _rejected(
                *(self.rows, pair.row, i, pair.id, pair.name, pair.chosen_text),
                self.config.corruption,
                self.config.seed,
            )
            for i in range(count)
        ]
        prompt = self._prompt(pair.name, text, images)
        return replace(prompt, images=_names(prompt.images, pair))

    def _with_similar(self, pair: Pair, row: Mapping[str, Any], messages: Sequence[Any]) -> Pair:
        images = [_decode(item, pair.name, n) for n, item in enumerate(row["similar_images"] or [])]
        text, answer, _ = self._rendered(pair.name, messages, row["similar_chosen"], row["chosen"], len(images))
        return replace(
            pair,
            similar=self._prompt(pair.name, text, images),
            similar_ids=self._answer(pair.name, "similar_chosen", answer),
        )

    def _rendered(self, name: str, prompt: Any, good: Any, bad: Any, images: int) -> tuple[str, str, str]:
        for side, messages in (("chosen", good), ("rejected", bad)):
            if not any(_text(message).strip() for message in messages or []):
                raise DataError(f"{name}: the {side} response is empty, so it has no tokens to train on; drop the row")
        try:
            return render(self.processor, prompt, good, bad, images)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        except Exception as error:
            raise DataError(f"{name}: the chat template cannot render it ({type(error).__name__}: {error})") from error

    def _prompt(self, name: str, text: str, images: Sequence[Image.Image]) -> Prompt:
        try:
            # add_special_tokens=False: the chat template already wrote them (TRL does the same). A list of lists: some
            # processors take the images of a flat one for those of several texts.
            encoding = self.processor(images=[list(images)] if images else None, text=[text], add_special_tokens=False)
        except Exception as error:
            raise DataError(f"{name}: the processor cannot read it ({type(error).__name__}: {error})") from error
        ids = tuple(encoding["input_ids"][0])
        hashes = (hashlib.blake2b(image.tobytes() + repr(image.size).encode()).hexdigest()[:32] for image in images)
        keys = {
            key: tuple(value[0])
            for key, value in encoding.items()
            if key.endswith("token_type_ids") and len(value[0]) == len(ids)
        }
        grid = encoding.get("image_grid_thw")
        grids = tuple(tuple(map(int, item)) for item in grid) if grid is not None else ()
        return Prompt(ids, tuple(hashes), keys, grids)

    def _answer(self, name: str, side: str, text: str) -> tuple[int, ...]:
        ids = tuple(self.processor(text=[text], add_special_tokens=False)["input_ids"][0])
        if not ids:
            raise DataError(f"{name}: the {side} response has no tokens; drop the row")
        return ids


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


def _decode(item: Mapping[str, Any], name: str, index: int) -> Image.Image:
    try:
        return encoded.decode(encoded.load(item))
    except Exception as error:  # Pillow raises many kinds on a damaged file
        raise DataError(
            f"{name}: image {index} cannot be read ({type(error).__name__}: {error}); replace it or drop the row"
        ) from error
