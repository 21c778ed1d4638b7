"""The thirty objects, their themes, and every word form that names them."""

from __future__ import annotations

from types import MappingProxyType

from reward.text.object_vocabulary import Vocabulary

#: Objects of a theme go along with each other; this co-occurrence is the prior the models hallucinate by.
THEMES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "sky": ("sun", "cloud", "moon", "star", "airplane"),
        "winter": ("umbrella", "snowman", "snowflake", "bolt", "cup"),
        "harbour": ("anchor", "wheel", "flag", "skull", "sword"),
        "office": ("telephone", "envelope", "pencil", "gear", "keyboard"),
        "chess": ("king", "queen", "castle", "bishop", "horse"),
        "farm": ("cat", "mouse", "monkey", "cow", "flower"),
    }
)
OBJECTS: tuple[str, ...] = tuple(name for names in THEMES.values() for name in names)

#: Code points in the DejaVu Sans font that ships inside matplotlib.
GLYPHS: MappingProxyType[str, str] = MappingProxyType(
    dict(
        zip(
            OBJECTS,
            "\u2600\u2601\u263e\u2605\u2708"
            "\u2602\u2603\u2744\u26a1\u2615"
            "\u2693\u2638\u2691\u2620\u2694"
            "\u260e\u2709\u270f\u2699\u2328"
            "\u265a\u265b\u265c\u265d\u265e"
            "\U0001f431\U0001f42d\U0001f435\U0001f42e\u273f",
            strict=True,
        )
    )
)

COLOURS: MappingProxyType[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (208, 32, 32),
        "orange": (236, 130, 10),
        "green": (28, 130, 50),
        "blue": (30, 80, 215),
        "purple": (128, 38, 168),
        "brown": (122, 74, 34),
        "pink": (240, 90, 170),
        "black": (24, 24, 28),
    }
)

_IRREGULAR = {"mouse": "mice", "snowman": "snowmen"}
#: Words a large model might use for the same thing; the built-in models themselves only use the names above.
_SYNONYMS = {
    "airplane": ("plane", "planes", "aeroplane", "aeroplanes"),
    "telephone": ("phone", "phones"),
    "castle": ("rook", "rooks", "tower", "towers"),
    "horse": ("knight", "knights"),
    "bolt": ("lightning", "lightning bolt", "lightning bolts"),
    "envelope": ("letter", "letters"),
}


def plural(name: str) -> str:
    """
    >>> plural("mouse"), plural("horse"), plural("cup")
    ('mice', 'horses', 'cups')
    """
    return _IRREGULAR.get(name, name + "s")


def article(name: str) -> str:
    """The indefinite article that goes before ``name``.

    >>> article("umbrella"), article("sun")
    ('an', 'a')
    """
    return "an" if name[0] in "aeiou" else "a"


VOCABULARY = Vocabulary(
    name="scenes",
    version="1",
    synonyms={form: name for name in OBJECTS for form in (name, plural(name), *_SYNONYMS.get(name, ()))},
)
