"""Questions about scenes for engines that hold the built-in VLM."""

from __future__ import annotations

from typing import Any

from pipeline.base.seeds import derive
from pipeline.engines.protocol import Request, Response, Sampling
from pipeline.scenes import raster
from pipeline.scenes.world import scene

SAMPLING = Sampling(n=4, temperature=1.0, max_tokens=24)


def request(index: int, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "id": f"r{index}",
        "images": (raster.png(scene(5, index)),),
        "messages": (("user", "Describe the image."),),
        "seed": derive(0, f"r{index}", "m"),
    }
    return Request(**{**values, **changes})


def ask(engine: Any, requests: list[Request], sampling: Sampling = SAMPLING) -> dict[str, Response]:
    """The responses by id, after checking that every request got exactly one."""
    responses = list(engine.generate(requests, sampling))
    assert sorted(item.id for item in responses) == sorted(item.id for item in requests)
    return {response.id: response for response in responses}
