"""Windows of a tower in one call give the features of a call for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_kit import stretch_by_stretch
from tiny_models import FAMILIES, Family, qwen2_vl

from reward.forward import attention
from training.forward import towers

QWEN2 = Family("Qwen2-VL", "Qwen/Qwen2-VL-7B-Instruct", "Qwen2VLForConditionalGeneration", qwen2_vl, (8, 12))


@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL"])
def test_windows_in_one_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = next(family for family in (*FAMILIES, QWEN2) if family.name == name).build()
    torch.manual_seed(0)
    merge = processor.image_processor.merge_size
    grids = torch.tensor([[1, 6 * merge, 5 * merge], [1, 3 * merge, 8 * merge]])
    width = model.model.visual.patch_embed.proj.weight[0].numel()
    pixels = torch.randn(int(grids.prod(1).sum()), width)
    calls: list[int] = []

    def counting(*given: Any, causal: bool) -> torch.Tensor:
        calls.append(len(given[3][0]) - 1)
        assert not causal
        return stretch_by_stretch(*given, causal=causal)

    def features() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat(list(model.get_image_features(pixel_values=pixels, image_grid_thw=grids).pooler_output))

    plain = features()
    monkeypatch.setattr(attention, "call", counting)
    towers.read_windows_in_one_call(model)
    torch.testing.assert_close(features(), plain, atol=1e-5, rtol=1e-4)
    assert len(calls) == len(model.model.visual.blocks) and min(calls) >= 2
    monkeypatch.setattr(attention, "call", lambda *given, causal: counting(*given, causal=causal).flip(0))
    assert (features() - plain).abs().max() > 1e-3


def test_other_towers_stay_as_they_are() -> None:
    model, _ = next(family for family in FAMILIES if family.name == "LLaVA-1.5").build()
    before = model.model.vision_tower.config._attn_implementation
    towers.read_windows_in_one_call(model)
    assert model.model.vision_tower.config._attn_implementation == before
