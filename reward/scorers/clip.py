"""How well a text fits its image, by a CLIP model through open_clip or transformers.

The score is the raw cosine similarity, in [-1, 1]. CLIPScore (Hessel et al. 2021) is 2.5 * max(cosine, 0), torchmetrics
prints 100 * max(cosine, 0); PickScore (Kirstain et al. 2023) is exp(logit_scale) * cosine, and HPS v2 (Wu et al. 2023)
the cosine itself. All follow from what is stored here, which also keeps the sign.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.images.pixels import BadImage, decode
from reward.models.clip_models import CONFIG_FILE, WEIGHTS_FILE, Encoders, find
from reward.scorers.by_conversation import check_options
from reward.scorers.protocol import Row, Scores

if TYPE_CHECKING:
    import torch

#: Pillow decodes and resizes outside Python's lock.
_THREADS = min(8, os.cpu_count() or 1)

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "ClipScorer"]


class ClipScorer:
    """Score ``clip.cosine``: cosine of text and image embedding, averaged over a row's images.

    Null for rows without images and for empty texts. Texts beyond the model's context length (77 tokens for most CLIPs)
    are cut by the model's tokenizer: only their beginning is compared. ``flags`` says which.

    Args:
        model: a folder, a hub id, or an architecture of open_clip; see ``reward.models.clip_models``.
        pretrained: for an architecture: a tag such as ``"openai"``, or the path of a checkpoint. Checkpoints are read
            as safetensors or as a plain state dict (``weights_only``), also one under the key ``state_dict``; pickled
            objects are refused.
        batch_size: images, and texts, per forward pass.
        device: ``"auto"`` takes a GPU when there is one.
        processor: for a model of transformers: folder or hub id of its processor, if that lies elsewhere.
        dtype: that the model computes in; ``"auto"`` is bfloat16 on a GPU and float32 on the CPU.

    Raises:
        ValueError: as ``reward.models.clip_models.find``.
    """

    name = "clip"

    def __init__(
        self,
        model: str | Path,
        pretrained: str | None = None,
        batch_size: int = 64,
        device: str = "auto",
        processor: str | None = None,
        dtype: str = "auto",
    ) -> None:
        check_options(batch_size, dtype)
        self.dtype = dtype
        self.model, self.pretrained, self.batch_size, self.device = str(model), pretrained, batch_size, device
        self._found = find(self.model, pretrained, processor)

    @cached_property
    def version(self) -> str:
        """What the values depend on. A local folder or checkpoint counts by its content, not by where it lies."""
        dtype = "" if self.dtype == "auto" else f":{self.dtype}"
        return f"{self._found.version}:{self._found.identity()}{dtype}"

    def score(self, rows: Sequence[Row]) -> Scores:
        """Each distinct image and each distinct text is encoded once, whatever number of rows share it.

        Raises:
            ValueError: an image cannot be decoded; the message names the row and the image.
        """
        wanted = [
            (row["images"], candidate["text"] if row["images"] and candidate["text"].strip() else None)
            for row in rows
            for candidate in row["candidates"]
        ]
        cosines = self._cosines(wanted, [row["images"] for row in rows])
        means = iter([None if of is None else float(of.mean()) for of in cosines])
        return {"clip.cosine": [[next(means) for _ in row["candidates"]] for row in rows]}

    def flags(self, rows: Sequence[Row]) -> Scores:
        """``clip.cut``: 1.0 for a text of which only the beginning was compared, 0.0 for one that was read to its end;
        null where there is no score."""
        texts = [[candidate["text"] if row["images"] else "" for candidate in row["candidates"]] for row in rows]
        cut = self.cut([text for of_row in texts for text in of_row])
        cuts = iter(cut)
        return {"clip.cut": [[None if (flag := next(cuts)) is None else float(flag) for _ in row] for row in texts]}

    def cut(self, texts: Sequence[str]) -> list[bool | None]:
        """Which texts are longer than the model's context; null for empty ones."""
        place = _places(text for text in texts if text.strip())
        flags = [flag for batch in _batches(list(place), self.batch_size) for flag in self._clip.cut(batch)]
        return [flags[place[text]] if text in place else None for text in texts]

    def score_images(self, rows: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[float]]:
        """For every (text, encoded images) the cosine of the text with each image, to rank images of one text.

        Raises:
            ValueError: a text is empty or an image cannot be decoded; the message names the row.
        """
        for number, (text, _) in enumerate(rows):
            if not text.strip():
                raise ValueError(f"row {number}: the text is empty; images can only be ranked by a text")
        cosines = self._cosines([(images, text) for text, images in rows], [images for _, images in rows])
        return [[] if of is None else of.tolist() for of in cosines]

    def embed_images(self, rows: Sequence[Sequence[bytes]]) -> list[torch.Tensor]:
        """For every row of encoded images their unit vectors, float32 [images, width]; each distinct image is encoded
        once.

        Raises:
            ValueError: an image cannot be decoded; the message names row and image.
        """
        place = _places(image for images in rows for image in images)
        vectors = self._encode_images(list(place), rows) if place else None
        return [
            torch.empty(0, 0) if vectors is None else vectors[[place[image] for image in images]] for images in rows
        ]

    def _cosines(
        self, pairs: Sequence[tuple[Sequence[bytes], str | None]], rows: Sequence[Sequence[bytes]]
    ) -> list[torch.Tensor | None]:
        """The cosine of every text with each of its images; None without either. ``rows`` name images in errors."""
        image_at = _places(image for images, text in pairs if text is not None for image in images)
        text_at = _places(text for images, text in pairs if text is not None and images)
        if not image_at:
            return [None] * len(pairs)
        image_vectors, text_vectors = self._encode_images(list(image_at), rows), self._encode_texts(list(text_at))
        return [
            image_vectors[[image_at[image] for image in images]] @ text_vectors[text_at[text]]
            if text is not None and images
            else None
            for images, text in pairs
        ]

    @cached_property
    def _clip(self) -> Encoders:
        return self._found.open(self._where)

    @cached_property
    def _where(self) -> str:
        import torch

        return self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Weights stay as they are; products are computed in ``dtype``."""
        import torch

        kind = torch.device(self._where).type
        name = automatic_dtype(kind) if self.dtype == "auto" else self.dtype
        with torch.inference_mode(), torch.autocast(kind, getattr(torch, name), enabled=name != "float32"):
            yield

    def _encode_images(self, images: Sequence[bytes], rows: Sequence[Sequence[bytes]]) -> torch.Tensor:
        import torch

        prepare = self._clip.prepare

        def ready(image: bytes) -> Any:
            return prepare(_decode(image, rows))

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="clip") as threads:
            # The next batch is read while the model has this one.
            ahead: deque[list[Future[Any]]] = deque()
            vectors = []
            for batch in [*_batches(images, self.batch_size), None]:
                if batch is not None:
                    ahead.append([threads.submit(ready, image) for image in batch])
                if ahead and (batch is None or len(ahead) > 1):
                    with self._precision():
                        vectors.append(self._clip.images([future.result() for future in ahead.popleft()]).cpu())
        return torch.cat(vectors)

    def _encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        with self._precision():
            return torch.cat([self._clip.texts(batch).cpu() for batch in _batches(texts, self.batch_size)])


def automatic_dtype(device: str) -> str:
    """
    >>> automatic_dtype("cuda"), automatic_dtype("cpu")
    ('bfloat16', 'float32')
    """
    return "bfloat16" if device == "cuda" else "float32"


def _places(items: Iterable[Any]) -> dict[Any, int]:
    """The distinct items, each with its place among them."""
    return {item: place for place, item in enumerate(dict.fromkeys(items))}


def _batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _decode(image: bytes, rows: Sequence[Sequence[bytes]]) -> Any:
    try:
        return decode(image, None, None)
    except BadImage as error:
        at = next((r, i) for r, images in enumerate(rows) for i, seen in enumerate(images) if seen == image)
        raise ValueError(f"row {at[0]}, image {at[1]}: cannot be decoded ({error})") from error
