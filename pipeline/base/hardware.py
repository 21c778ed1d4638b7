"""The GPUs that a run may use. Read once, where a command begins; everything that follows from them is a function of
``Hardware``. Imports neither torch nor Ray.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16"]
#: A number of workers that is left to the GPUs there are.
Auto = Literal["auto"]

#: Kinds before Ampere, as Ray calls them: they have no bfloat16.
_WITHOUT_BFLOAT16 = ("K80", "M60", "P4", "P40", "P100", "T4", "V100", "RTX-8000")
#: Of NVIDIA, from Ampere on.
_BFLOAT16_SINCE = 8


@dataclass(frozen=True, slots=True)
class Node:
    """A machine: its CPUs and GPUs. ``here``: this process runs on it."""

    cpus: float = 1.0
    gpus: float = 0.0
    bfloat16: bool = True
    here: bool = False


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machines of a cluster, or this one alone.

    >>> Hardware((Node(cpus=16, here=True), Node(64, 8), Node(64, 8))).gpus
    16
    """

    nodes: tuple[Node, ...] = (Node(here=True),)

    @property
    def gpus(self) -> int:
        return int(sum(node.gpus for node in self.nodes))

    @property
    def gpus_here(self) -> int:
        return int(sum(node.gpus for node in self.nodes if node.here))

    @property
    def dtype(self) -> Dtype:
        """What a model computes in unless told otherwise: bfloat16 where every GPU has it, and float32 elsewhere.

        float16 is nobody's default: vLLM takes it and training does not (gradients underflow without loss scaling), and
        a run has one precision.
        """
        graphic = [node for node in self.nodes if node.gpus]
        return "bfloat16" if graphic and all(node.bfloat16 for node in graphic) else "float32"

    def workers(self, gpus: float, cpus: float = 1.0) -> int:
        """How many workers that need so many GPUs each have room: all GPUs work. Without GPUs, or for workers that need
        none, one: on a CPU the libraries take all cores by themselves. A worker does not spread over machines, nor does
        one that takes a share of a GPU over two.

        >>> Hardware((Node(64, 8), Node(64, 4))).workers(gpus=2.0), Hardware((Node(64, 2),)).workers(gpus=0.4)
        (6, 4)
        """
        if not gpus or not self.gpus:
            return 1
        room = [node.gpus * int(1 / gpus + 1e-6) if gpus < 1 else node.gpus / gpus for node in self.nodes]
        return max(1, sum(int(min(fits, node.cpus / cpus) + 1e-6) for fits, node in zip(room, self.nodes, strict=True)))


def this_machine() -> Hardware:
    """This machine's NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves visible, as their driver tells: no CUDA context is
    made. Without a driver there are none."""
    cpus = float(os.cpu_count() or 1)
    try:
        majors = _capabilities(ctypes.CDLL("libnvidia-ml.so.1"))
    except (OSError, AttributeError):
        majors = []
    majors = majors[: _visible(os.environ.get("CUDA_VISIBLE_DEVICES"), len(majors))]
    return Hardware((Node(cpus, len(majors), all(major >= _BFLOAT16_SINCE for major in majors), here=True),))


def has_bfloat16(kinds: Sequence[str]) -> bool:
    """Of kinds of GPUs as Ray names them; one that is not known is taken for a new one.

    >>> has_bfloat16(["H100"]), has_bfloat16(["T4"])
    (True, False)
    """
    return not any(kind.upper().removeprefix("TESLA-") in _WITHOUT_BFLOAT16 for kind in kinds)


def _visible(setting: str | None, gpus: int) -> int:
    """How many of so many GPUs CUDA shows: it stops at the first entry that is none.

    >>> _visible(None, 8), _visible("", 8), _visible("2,3", 8), _visible("0,-1,1", 8), _visible("GPU-1a", 8)
    (8, 0, 2, 1, 1)
    """
    if setting is None:
        return gpus
    count = 0
    for entry in (part.strip() for part in setting.split(",")):
        if not entry or (entry.lstrip("-").isdigit() and not 0 <= int(entry) < gpus):
            break
        count += 1
    return min(count, gpus)


def _capabilities(driver: Any) -> list[int]:
    """The major compute capability of each GPU (NVML)."""
    if driver.nvmlInit_v2() != 0:
        return []
    try:
        count = ctypes.c_uint()
        if driver.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        majors = []
        for index in range(count.value):
            device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
            if driver.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
                continue
            driver.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
            majors.append(major.value)
        return majors
    finally:
        driver.nvmlShutdown()
