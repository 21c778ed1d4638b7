"""``vlm-preference memory``: which GPUs a model needs."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

runner = CliRunner()


def test_a_model_of_ones_own_with_options_of_training() -> None:
    result = runner.invoke(app, ["memory", "scenes-vlm", "micro_batch_size=2", "tuning=full"])
    assert result.exit_code == 0, result.output
    head, _, sampling, training = result.output.strip().splitlines()
    assert head.startswith("| scenes-vlm | 24 GiB |") and sampling.startswith("| sampling, answers at once | 1 x ")
    assert training.startswith("| micro_batch_size=2 tuning=full | 1 x 0.0 |")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scenes-vlm", "lora.rr=2"], "did you mean lora.r?"),
        (["scenes-vlm", "--image", "3x"], "write 1280x960, or 576"),
        (["scenes-vlm", "--image", "0x4"], "write 1280x960, or 576"),
        (["--image", "576"], "name MODEL"),
        (["scenes-vlm", "scenes-clip"], "name one"),
        (["scenes-clip"], "cannot be loaded"),
        (["./nowhere"], "no model folder './nowhere'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], says: str) -> None:
    result = runner.invoke(app, ["memory", *arguments])
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output
