"""What follows from the GPUs that there are: the dtype of a run, and how many workers have room."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from pipeline.base import hardware
from pipeline.base.hardware import Hardware, Node, this_machine

NONE = Hardware()
EIGHT = Hardware((Node(96, 8, here=True),))
HEAD_AND_WORKERS = Hardware((Node(16, here=True), Node(64, 8), Node(64, 8)))
OLD = Hardware((Node(8, 1, bfloat16=False, here=True),))
MIXED = Hardware((Node(8, 1, bfloat16=False), Node(8, 1)))


def test_bfloat16_where_every_gpu_has_it_and_float32_elsewhere() -> None:
    found = [each.dtype for each in (NONE, EIGHT, HEAD_AND_WORKERS, OLD, MIXED)]
    assert found == ["float32", "bfloat16", "bfloat16", "float32", "float32"]


def test_all_gpus_of_the_cluster_work() -> None:
    assert [each.workers(1.0) for each in (NONE, EIGHT, HEAD_AND_WORKERS)] == [1, 8, 16]
    assert (HEAD_AND_WORKERS.gpus, HEAD_AND_WORKERS.gpus_here, EIGHT.gpus_here) == (16, 0, 8)


def test_a_model_over_several_gpus_or_a_part_of_one() -> None:
    assert HEAD_AND_WORKERS.workers(4.0) == 4
    assert EIGHT.workers(0.25) == 32
    # Two machines of four GPUs hold no model over eight: one worker, which the pool then refuses by its needs.
    assert Hardware((Node(64, 4), Node(64, 4))).workers(8.0) == 1


def test_cpus_bound_it_too_and_what_needs_no_gpu_stays_alone() -> None:
    assert Hardware((Node(4, 8),)).workers(1.0) == 4
    assert EIGHT.workers(0.0) == 1


class Driver:
    """NVML of a machine with GPUs of these capabilities."""

    def __init__(self, *majors: int) -> None:
        self.majors = majors

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlShutdown(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.majors)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        device._obj.value = index + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:
        major._obj.value = self.majors[device.value - 1]
        return 0


@pytest.mark.parametrize(
    ("majors", "visible", "gpus", "dtype"),
    [
        ((), None, 0, "float32"),
        ((9,) * 8, None, 8, "bfloat16"),
        ((9,) * 8, "0,3", 2, "bfloat16"),
        ((9,) * 8, "", 0, "float32"),
        ((7,), None, 1, "float32"),
    ],
)
def test_this_machine_is_read_from_its_driver(
    majors: tuple[int, ...], visible: str | None, gpus: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(*majors))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = this_machine()
    assert (found.gpus, found.gpus_here, found.dtype) == (gpus, gpus, dtype)


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert this_machine().gpus == 0
    assert hardware.has_bfloat16(["A100"]) and not hardware.has_bfloat16(["A100", "V100"])
