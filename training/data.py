"""A published dataset, opened, checked and tokenised once.

The columns are TRL's vision-preference columns: ``images`` list<Image>, ``prompt``, ``chosen`` and ``rejected`` as
lists of ``{role, content}``; ``id`` is optional. Text is rendered as TRL 1.16 does, so both train on the same tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from pipeline import images as encoded
from training.config import Corruption
from training.corrupt import corrupt
from training.errors import DataError

COLUMNS = ("images", "prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair as token ids; the images stay encoded in the dataset.

    ``prompt_keys`` are the processor's further per-token outputs for the prompt (``mm_token_type_ids``, ...), each as
    long as ``prompt_ids``. ``images`` are content hashes, one per image. ``id`` is a hash of the whole row, so it is
    stable when rows move; ``name`` is what errors call the row.
    """

    row: int
    id: str
    name: str
    images: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    prompt_keys: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PairDataset:
    """Tokenised pairs, and what is needed to read their images. ``pairs[i].row == i``."""

    pairs: tuple[Pair, ...]
    rows: datasets.Dataset
    processor: Any
    corruption: Corruption
    seed: int

    def image(self, pair: Pair, index: int) -> Image.Image:
        """The pair's ``index``-th image, decoded, RGB."""
        return _decode(self.rows[pair.row]["images"][index], pair.name, index)

    def corrupted(self, pair: Pair, index: int) -> Image.Image:
        """The same image corrupted, RGB, same size; every call returns the same pixels."""
        return corrupt(self.image(pair, index), self.corruption.keep_area, self.seed, pair.id, index)


def open_dataset(path: str) -> datasets.Dataset:
    """Open the ``pairs`` of a published dataset: a ``save_to_disk`` folder, or anything ``load_dataset`` takes.

    Images stay encoded (``Image(decode=False)``). Raises ``DataError`` if it cannot be opened or lacks a column.
    """
    folder = Path(path)
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"dataset {path}: is a file; give the folder that holds the dataset")
        saved = next((f for f in (folder, folder / "pairs") if _is_saved(f)), None)
        loaded = datasets.load_from_disk(str(saved)) if saved else _load(path)
    except DataError:
        raise
    except Exception as error:  # datasets, huggingface_hub and fsspec each raise their own kinds
        raise DataError(f"dataset {path}: cannot be opened ({type(error).__name__}: {error})") from error
    if isinstance(loaded, dict) and "pairs" in loaded:  # a published dataset opened whole: its configs are the keys
        loaded = loaded["pairs"]
    if isinstance(loaded, dict):
        if "train" not in loaded:
            raise DataError(f"dataset {path}: has the splits {sorted(loaded)}, none named train; point at one split")
        loaded = loaded["train"]
    return check_columns(loaded, path)


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _load(path: str) -> Any:
    configs = datasets.get_dataset_config_names(path)
    return datasets.load_dataset(path, "pairs" if "pairs" in configs else None)


def check_columns(dataset: datasets.Dataset, path: str) -> datasets.Dataset:
    """The dataset with images left encoded, or ``DataError`` naming what is missing and the remedy."""
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        hint = "; put the single `image` into a list named `images`" if "image" in dataset.column_names else ""
        raise DataError(
            f"dataset {path}: missing column(s) {', '.join(missing)}; it has {', '.join(dataset.column_names)}. "
            f"Needed: images (list of images), prompt, chosen, rejected (lists of role/content messages){hint}"
        )
    if len(dataset) == 0:
        raise DataError(f"dataset {path}: has no rows; nothing to train on")
    for name in COLUMNS[1:]:
        value = dataset.with_format(None).select_columns([name])[0][name]
        if not isinstance(value, list) or not value or not isinstance(value[0], dict) or "role" not in value[0]:
            raise DataError(
                f"dataset {path}: column {name} is not conversational (first value {value!r:.80}); "
                'write it as [{"role": "user", "content": "..."}]'
            )
    try:
        return dataset.cast_column("images", datasets.List(datasets.Image(decode=False)))
    except Exception as error:
        raise DataError(
            f"dataset {path}: column images has type {dataset.features['images']}, not a list of images; "
            "cast it to List(Image())"
        ) from error


def prepare(
    dataset: datasets.Dataset,
    processor: Any,
    corruption: Corruption,
    seed: int,
    max_length: int | None = None,
    needs_image: bool = False,
) -> PairDataset:
    """Tokenise every row once; also decodes every image once, so a broken one is found before training.

    ``max_length`` is the model's number of positions: nothing is truncated, a longer row is an error.
    ``needs_image`` says that every row must hold at least one image (mDPO compares images).
    """
    pairs = tuple(
        _tokenise(index, row, processor, max_length, needs_image) for index, row in enumerate(dataset.with_format(None))
    )
    return PairDataset(pairs, dataset, processor, corruption, seed)


def _tokenise(index: int, row: Mapping[str, Any], processor: Any, max_length: int | None, needs_image: bool) -> Pair:
    name = f"row {index}" + (f" (id {row['id']})" if row.get("id") is not None else "")
    items = row["images"] or []
    if needs_image and not items:
        raise DataError(f"{name}: has no image, and objective=mdpo compares images; drop the row or use objective=dpo")
    images = [_decode(item, name, number) for number, item in enumerate(items)]
    for side in ("chosen", "rejected"):
        if not any(_text(message).strip() for message in row[side] or []):
            raise DataError(f"{name}: the {side} response is empty, so it has no tokens to train on; drop the row")
    try:
        prompt, chosen, rejected = render(processor, row["prompt"], row["chosen"], row["rejected"], len(images))
        # add_special_tokens=False: the chat template already wrote them (TRL does the same).
        encoding = processor(images=images or None, text=[prompt], add_special_tokens=False)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: the processor cannot read it ({type(error).__name__}: {error})") from error
    ids = {"chosen": _ids(processor, chosen), "rejected": _ids(processor, rejected)}
    for side, tokens in ids.items():
        if not tokens:
            raise DataError(f"{name}: the {side} response has no tokens; drop the row")
    prompt_ids = tuple(encoding["input_ids"][0])
    longest = len(prompt_ids) + max(map(len, ids.values()))
    if max_length is not None and longest > max_length:
        raise DataError(
            f"{name}: is {longest} tokens long, the model has {max_length} positions; drop the row "
            "(cutting it could cut image tokens)"
        )
    hashes = tuple(hashlib.blake2b(image.tobytes() + repr(image.size).encode()).hexdigest()[:32] for image in images)
    return Pair(
        row=index,
        id=_digest(row.get("id"), hashes, prompt, chosen, rejected),
        name=name,
        images=hashes,
        prompt_ids=prompt_ids,
        chosen_ids=ids["chosen"],
        rejected_ids=ids["rejected"],
        prompt_keys={
            key: tuple(value[0])
            for key, value in encoding.items()
            if key.endswith("token_type_ids") and len(value[0]) == len(prompt_ids)
        },
    )


def render(
    processor: Any, prompt: Sequence[Any], chosen: Sequence[Any], rejected: Sequence[Any], n_images: int
) -> tuple[str, str, str]:
    """Render a row with the model's chat template into (prompt, chosen, rejected) strings.

    The prompt is the longest common prefix of the rendered prompt (with the generation prompt), prompt + chosen and
    prompt + rejected; each completion is the rest of its rendering. With a template that writes ``<user>``,
    ``<image>``, ``<assistant>`` and ``</s>``, one image and the texts "q", "a", "b":
    ``("<user><image>q<assistant>", "a</s>", "b</s>")``. Raises ``DataError`` on a wrong number of image placeholders.
    """
    head, good, bad = structured(prompt, n_images), structured(chosen, 0), structured(rejected, 0)
    continues = head[-1]["role"] == "assistant"
    start = processor.apply_chat_template(
        head, tokenize=False, add_generation_prompt=not continues, continue_final_message=continues
    )
    with_chosen = processor.apply_chat_template(head + good, tokenize=False)
    with_rejected = processor.apply_chat_template(head + bad, tokenize=False)
    for whole in (with_chosen, with_rejected):
        start = "".join(a for a, _ in takewhile(lambda ab: ab[0] == ab[1], zip(start, whole, strict=False)))
    return start, with_chosen[len(start) :], with_rejected[len(start) :]


def structured(messages: Sequence[Mapping[str, Any]], n_images: int) -> list[dict[str, Any]]:
    """Messages with every content as a list of parts; image placeholders stand before the first user text.

    >>> structured([{"role": "user", "content": "q"}], 1)
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


def _text(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or [])


def _ids(processor: Any, text: str) -> tuple[int, ...]:
    return tuple(processor(text=[text], add_special_tokens=False)["input_ids"][0])


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _decode(item: Mapping[str, Any], name: str, index: int) -> Image.Image:
    try:
        return encoded.decode(encoded.load(item))
    except Exception as error:  # Pillow raises many kinds on a damaged file
        raise DataError(
            f"{name}: image {index} cannot be read ({type(error).__name__}: {error}); replace it or drop the row"
        ) from error
