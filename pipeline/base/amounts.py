"""Times, sizes and counts as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """
    >>> duration(7200.0), duration(90.0), duration(4.2)
    ('2.0 h', '1.5 min', '4.2 s')
    """
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def megabytes(size: float) -> str:
    """
    >>> megabytes(3_400_000_000), megabytes(20_000)
    ('3.4 GB', '0.1 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):.1f} MB"


def number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
