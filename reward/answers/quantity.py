"""Numbers as they are written: digits, words, with a sign, a currency or a unit."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from reward.answers.answer_words import UNSURE, words
from reward.text.numbers import TENS, number_words

_SMALL = number_words(0, 19) | {word: 10 * i for i, word in enumerate(TENS, 2)}
_LARGE = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_WORDS = "|".join([*_SMALL, *_LARGE])
#: One number in words: "three", "twenty-one", "two hundred and five".
_SPOKEN = rf"(?:(?:{_WORDS})(?:[ -](?:and )?(?={_WORDS}))?)+"
_DIGITS = r"\d+(?:[.,]\d+)*(?:/\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?\s?(?P<currency>[$\u20ac\u00a3\u00a5])?(?P<minus>-)?"
    rf"(?:(?P<vulgar>\d*[\u00bc-\u00be\u2150-\u215e])|(?P<digits>{_DIGITS})|(?P<spoken>\b{_SPOKEN}\b))"
    r"(?P<mark>\s?(?:%|\u2030|\u00b0\s?[cf]?\b|[$\u20ac\u00a3\u00a5]|\u2032|\u2033|['\"](?!\w)|!|\*|\+|[\u00b2\u00b3]))?"
)
#: Another name for a mark or for a unit.
_UNITS = {
    "%": "percent, per cent, pct",
    "$": "dollar, dollars, usd",
    "\u20ac": "euro, euros, eur",
    "\u00b0c": "degrees celsius, celsius, degree celsius, degrees c",
    "\u00b0f": "degrees fahrenheit, fahrenheit, degree fahrenheit, degrees f",
    "\u00b0": "degree, degrees",
    "mm": "millimeter, millimeters, millimetre, millimetres",
    "cm": "centimeter, centimeters, centimetre, centimetres, cms",
    "m": "meter, meters, metre, metres",
    "km": "kilometer, kilometers, kilometre, kilometres",
    "ft": "foot, feet",
    "in": "inch, inches",
    "mi": "mile, miles",
    "yd": "yard, yards",
    "mg": "milligram, milligrams",
    "g": "gram, grams",
    "kg": "kilogram, kilograms, kilo, kilos",
    "lb": "lbs, pound, pounds",
    "oz": "ounce, ounces",
    "ml": "milliliter, milliliters, millilitre, millilitres",
    "l": "liter, liters, litre, litres",
    "s": "sec, secs, second, seconds",
    "min": "mins, minute, minutes",
    "h": "hr, hrs, hour, hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years, years old, year old, yrs",
    "mph": "miles per hour",
    "kmh": "km/h, kph, kilometers per hour",
    "clock": "o clock, o'clock",
    "am": "a.m",
    "pm": "p.m",
    "cent": "cents",
}
UNITS = {form: unit for unit, forms in _UNITS.items() for form in (unit, *forms.split(", "))}
#: Signs without which the number is another one, and those of which no two may stand for each other.
_APART = frozenset("%\u2030$\u20ac\u00a3\u00a5\u00b2\u00b3")
_CHANGING = _APART | {"\u00b0c", "\u00b0f"}
#: Not part of what is counted.
_JOINTS = UNSURE
#: Their value in words depends on what is counted.
_VAGUE = words(
    "dozen dozens couple couples pair pairs half halves quarter quarters third thirds times hundreds thousands "
    "millions billions k mil mio mn bn trillion trillions lakh lakhs crore crores score scores gross grand"
)
#: Longer ones are codes, and what is compared with them is what is written.
_MOST_DIGITS = 30


@dataclass(frozen=True, slots=True)
class Quantity:
    """``unit`` is "" for a bare number, a mark, a unit's short name, or else what is counted as it is called.

    ``spelling`` is what numbers of equal value may still differ in: a plus, zeros at an end, a fraction. ``sure`` is
    false where the digits can be read in two ways: "1.000", "1,5".
    """

    value: Fraction
    unit: str = ""
    spelling: str = ""
    sure: bool = True
    marked: bool = False


def same(first: Quantity, second: Quantity) -> bool | None:
    """Whether two quantities are the same; None if that cannot be told.

    A sign makes another number (-5), and so do those of money, shares and powers ($5, 5%, 5²). Other units may be left
    out, and are converted by nobody here.
    """
    equal = first.value == second.value
    plain = first.sure and second.sure and not (equal and first.spelling != second.spelling)
    if first.unit == second.unit:
        return equal if plain else None
    units = [side for side in (first, second) if side.unit]
    if len(units) == 2:  # 5°C and 5°F
        return False if equal and all(side.marked and side.unit in _CHANGING for side in units) else None
    (unit,) = units
    if unit.marked and unit.unit in _APART:
        return None if 100 * first.value == second.value or first.value == 100 * second.value else False
    counts = not unit.marked and unit.unit not in UNITS.values()  # "two dogs" where a number was asked for
    return equal if counts and plain else None


@lru_cache(4096)
def quantity(text: str) -> Quantity | None:
    """The number that a text consists of, with its unit; None for any other text. ``text`` is as ``spelling`` gives it.

    >>> quantity("-5"), quantity("twenty-one dogs")
    (Quantity(value=Fraction(-5, 1), unit='', spelling='', sure=True, marked=False), Quantity(value=Fraction(21, 1), \
unit='dogs', spelling='', sure=True, marked=False))
    >>> quantity("2-3"), quantity("a dog"), quantity("3 dogs and a cat")
    (None, None, None)
    """
    match = _NUMBER.match(text)
    if match is None or (match["sign"] and match["minus"]):
        return None
    number = _value(match)
    rest = text[match.end() :]
    if number is None or (rest and not (rest[0].isspace() or (rest[0].isalpha() and match["digits"]))):
        return None
    value, spelling, sure = number
    negative = "-" in (match["sign"], match["minus"])
    spelling += "+" if match["sign"] == "+" else ""
    value = -value if negative else value
    unit = " ".join(rest.split())
    mark = (match["currency"] or "") + "".join((match["mark"] or "").split())
    if match["currency"] and match["mark"]:
        return None
    if not unit:
        return Quantity(value, mark, spelling, sure, bool(mark))
    if mark or (_VAGUE | _JOINTS | set(_LARGE)) & set(unit.split()):
        return None
    if unit in UNITS:
        return Quantity(value, UNITS[unit], spelling, sure)
    if rest[0].isalpha() or not re.fullmatch(r"[^\W\d_]+(?:[ -][^\W\d_]+){0,2}", unit):
        return None
    return Quantity(value, unit, spelling, sure)


def _value(match: re.Match[str]) -> tuple[Fraction, str, bool] | None:
    """Value, spelling, and whether it can be read in one way only."""
    if match["spoken"] is not None:
        value = _spoken(re.split(r"[ -]", match["spoken"]))
        return None if value is None else (Fraction(value), "", True)
    if (vulgar := match["vulgar"]) is not None:
        whole = vulgar[:-1]
        part = Fraction(unicodedata.numeric(vulgar[-1])).limit_denominator(100)
        return int(whole or 0) + part, "fraction", True
    digits = "".join(str(unicodedata.digit(digit)) if digit.isdigit() else digit for digit in match["digits"])
    if len(digits) > _MOST_DIGITS:
        return None
    if "/" in digits:
        above, _, below = digits.partition("/")
        plain = above.isdigit() and int(below) != 0
        return (Fraction(int(above), int(below)), f"fraction {digits}", True) if plain else None
    # 007 is called 7 by nobody, and 3.10 is no 3.1 where it is a version.
    zeros = "zeros" if re.match(r"0\d", digits) or re.search(r"\.\d*[1-9]\d*0$", digits) else ""
    if re.fullmatch(r"\d+|\d*\.\d+", digits):
        return Fraction(digits), zeros, not re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", digits)
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", digits):
        return Fraction(digits.replace(",", "")), "", True
    if re.fullmatch(r"\d+,\d{1,2}", digits):
        return Fraction(digits.replace(",", ".")), zeros, False
    return None


def _spoken(words: list[str]) -> int | None:
    """
    >>> _spoken("two hundred and five".split()), _spoken("twenty one".split()), _spoken("one two".split())
    (205, 21, None)
    """
    total = part = 0
    last = 10**12
    for word in words:
        if word == "and":
            continue
        if word in _SMALL:
            size = _SMALL[word]
            fits = part == 0 or part % 100 == 0 or (part % 10 == 0 and part % 100 >= 20 and 0 < size < 10)
            if not fits or (part and size == 0) or (last < 10 and part % 100):
                return None
            part += size
        elif word == "hundred":
            if not 0 < part < 10:
                return None
            part *= 100
        elif word in _LARGE:
            if not 0 < part < 1000 or _LARGE[word] >= last:
                return None
            total, part, last = total + part * _LARGE[word], 0, _LARGE[word]
        else:
            return None
    return total + part
