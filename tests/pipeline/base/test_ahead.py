"""Reading ahead: in order, as many at a time as are allowed, and not at all on this machine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.base.ahead import ahead
from pipeline.base.files import locate

FAR = locate("memory://ahead")


def test_far_files_are_read_at_a_time_and_come_in_order() -> None:
    together = threading.Barrier(3, timeout=30)

    def read(key: int) -> int:
        together.wait()  # nobody gets on before three are there
        return key * key

    assert list(ahead(read, range(6), FAR, most=3)) == [0, 1, 4, 9, 16, 25]


def test_no_more_are_read_than_are_wanted_soon() -> None:
    started: list[int] = []
    values = ahead(lambda key: started.append(key) or key, range(100), FAR, most=4)
    assert next(values) == 0
    values.close()
    assert len(started) <= 4


def test_files_of_this_machine_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    started: list[int] = []
    values = ahead(lambda key: started.append(key) or key, range(100), tmp_path, most=4)
    assert next(values) == 0 and started == [0]


def test_an_error_comes_when_it_is_its_turn() -> None:
    def read(key: int) -> int:
        if key == 2:
            raise OSError("gone")
        return key

    values = ahead(read, range(5), FAR, most=4)
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(values)
