"""Whether the vision tower gives what the prompts have room for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reward.forward.features import tower_features
from reward.forward.parts import Parts
from training.data.pairs import PairDataset
from training.errors import DataError
from training.forward.batch import collate


@torch.no_grad()
def check_features(model: nn.Module, dataset: PairDataset, device: torch.device) -> None:
    """Run the tower on one pair for every shape of image there is: features must equal placeholders. The model must be
    on ``device``.

    Raises ``DataError`` naming the row: a model that silently trains on half an image is worse than none.
    """
    parts = Parts.of(model)
    token = getattr(parts.config, "image_token_id", None)
    if token is None or not hasattr(parts.whole, "get_image_features"):
        return
    seen: set[Any] = set()
    for index, pair in enumerate(dataset.pairs):
        placeholders = pair.prompt.ids.count(token)
        shape = (placeholders, len(pair.prompt.images), pair.prompt.grids)
        if not pair.prompt.images or shape in seen:
            continue
        seen.add(shape)
        batch = collate(dataset, [index], ("chosen",))
        images = [image for i in batch.group_images[0] if (image := batch.images[i]) is not None]
        try:
            features = sum(part.numel() // part.shape[-1] for part in tower_features(model, images, device))
        except Exception as error:  # pixels that do not fit fail somewhere inside the tower
            raise DataError(
                f"{pair.name}: the vision tower cannot read its images ({type(error).__name__}: {error}); the "
                "processor does not belong to this model (check patch_size and image size)"
            ) from error
        if features != placeholders:
            raise DataError(
                f"{pair.name}: {placeholders} image placeholders in the prompt, {features} features from the vision "
                "tower; the processor does not belong to this model (check patch_size, image size and template)"
            )
