"""Final pixels of an encoded image: what every reader of it is to see, with nothing left to interpret.

A file may leave to its reader which way is up (EXIF), what shines through (alpha), and what 16 bits mean on a screen.
Readers disagree: an engine turns a photo that a processor does not. Here it is decided once: the picture is turned
upright, stands on white, and has 8 bits of red, green and blue. Of several frames the first counts. Colour profiles are
not applied, as no model's processor applies them.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 50_000_000
MAX_PIXELS = 100_000_000
#: What a camera, a browser or a renderer writes. Others are refused: Pillow has readers that start other programs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

#: Formats that servers, browsers and ``datasets`` all read; Pillow calls a JPEG with a preview in it MPO.
_COMMON = frozenset({"PNG", "JPEG", "MPO", "WEBP"})
#: Where Pillow puts what may tell the orientation.
_ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
_ORIENTATION = 0x0112
#: TIFF's tags for bits per sample and for what zero means (0: white).
_BITS, _PHOTOMETRIC = 258, 262
_HEADER = threading.Lock()


class BadImage(ValueError):
    """An image that is not to be decoded, or cannot be. ``kind`` is the row's ``error_type``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def decode(data: bytes, max_pixels: int | None = MAX_PIXELS, max_bytes: int | None = MAX_BYTES) -> Image.Image:
    """The final pixels as an RGB image without metadata, decoded whole: a truncated file has a good header.

    EXIF's orientation is applied; what is transparent stands on white. Grey of 16 bits is scaled to 8; of TIFF's 32
    bits or floats from the smallest of 0..1 (floats), 0..255 and 0..65535 that holds all values, else from the least
    to the greatest. Without limits (None), it is for files that were looked at before.

    Raises:
        BadImage: too large (found out before any pixel is decoded), truncated, or in none of ``FORMATS``.
    """
    return look(data, max_pixels, max_bytes)[0]


def look(
    data: bytes, max_pixels: int | None = MAX_PIXELS, max_bytes: int | None = MAX_BYTES
) -> tuple[Image.Image, bool]:
    """As ``decode``, and whether the file had to be interpreted: turned, laid on white, or scaled to 8 bits.

    Raises:
        BadImage: as ``decode``.
    """

    if not data:
        raise BadImage("unreadable_image", "empty file")
    check_size(len(data), max_bytes)
    try:
        image: Image.Image = _open_checked(data, max_pixels)
        image.load()
        turn = _turn(image)
        see_through, deep = image.has_transparency_data, image.mode.startswith(("I", "F"))
        if image.mode != "RGB" or see_through:
            image = _rgb(image, data)
        image = _bare(image) if turn is None else _bare(image.transpose(turn))
        return image, turn is not None or see_through or deep
    except BadImage:
        raise
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and others
        raise _unreadable(error) from error


def final(data: bytes) -> bytes:
    """The file itself if every reader sees in it what ``decode`` gives, else those pixels as a PNG file.

    The first are PNG, JPEG and WebP of one frame with 8 bits of RGB or grey, upright and opaque. Of them only the
    header is read. There is no limit: it is for files that were looked at before.

    Raises:
        BadImage: as ``decode``.
    """
    return data if is_final(data) else encode(decode(data, None, None))


def is_final(data: bytes) -> bool:
    """Whether nothing is left to interpret in the file, as its header says; False for what is no image."""
    try:
        image = _open_checked(data, None)
        if image.format not in _COMMON or image.mode not in ("RGB", "L") or image.has_transparency_data:
            return False
        if image.format == "PNG" and (_depth(data) != 8 or _may_be_turned(data)):
            return False
        several = image.format != "MPO" and getattr(image, "is_animated", False)
        return not several and (_ORIENTED.isdisjoint(image.info) or _orientation(image.info) == 1)
    except Exception:  # whoever decodes it will say why
        return False


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the final picture in pixels, from the header alone.

    Raises:
        BadImage: it is no image.
    """
    try:
        image = _open_checked(data, None)
        width, height = image.size
        if image.format == "PNG" and width * height <= MAX_PIXELS and _may_be_turned(data):
            image.load()
        turn = _turn(image)
    except Exception as error:
        raise _unreadable(error) from error
    return (height, width) if turn is not None and turn.name in _SIDEWAYS else (width, height)


def check(data: bytes, max_pixels: int | None = MAX_PIXELS, max_bytes: int | None = MAX_BYTES) -> None:
    """
    Raises:
        BadImage: the file or its picture is too large, or it is no image, as its header says.
    """
    check_size(len(data), max_bytes)
    try:
        _open_checked(data, max_pixels)
    except BadImage:
        raise
    except Exception as error:
        raise _unreadable(error) from error


def encode(image: Image.Image) -> bytes:
    """The picture as a PNG file of its pixels alone; hardly compressed, which takes a fifth of the time."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check_size(count: int, most: int | None) -> None:
    """
    Raises:
        BadImage: a file of ``count`` bytes is larger than ``most``.
    """
    if most is not None and count > most:
        raise BadImage("image_too_large", f"{count} bytes, more than max_image_bytes={most}")


def _unreadable(error: Exception) -> BadImage:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return BadImage("unreadable_image", f"in none of the formats {', '.join(FORMATS)}")
    return BadImage("unreadable_image", f"{type(error).__name__}: {error}")


def _open_checked(data: bytes, max_pixels: int | None) -> Any:
    """Reads the header. Pillow's own check of the size, which only warns up to twice its limit, gives way to ours."""
    from PIL import Image

    # The limit is a global of Pillow, and workers decode in threads.
    with _HEADER:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise BadImage("image_too_large", f"{width} x {height} pixels, more than max_image_pixels={max_pixels}")
    return image


# ----------------------------------------------------------------------------------------------------------- which way

_SIDEWAYS = frozenset({"TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"})


def _turn(image: Any) -> Image.Transpose | None:
    """What turns it upright; None if it is. Pillow has turned a TIFF by itself."""
    from PIL import Image

    if image.format == "TIFF" or _ORIENTED.isdisjoint(image.info):
        return None
    turns = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    at = _orientation(image.info)
    return Image.Transpose[turns[at - 2]] if at is not None and 2 <= at <= 8 else None


def _orientation(info: dict[Any, Any]) -> int | None:
    """EXIF's orientation, 1 where there is none; None where what there is cannot be read."""
    from PIL import Image

    bare = Image.Image()  # the opened image would keep what it reads
    bare.info = info
    try:
        orientation = bare.getexif().get(_ORIENTATION, 1)
    except Exception:  # struct.error, SyntaxError and others, of a damaged EXIF
        return None
    return orientation if type(orientation) is int and 1 <= orientation <= 8 else 1


def _bare(image: Image.Image) -> Image.Image:
    """Without metadata: somebody would turn it again, or take two photos for one by an id in their EXIF."""
    image.info.clear()
    try:
        image.getexif().clear()  # what was read when a JPEG without a JFIF header was opened
    except Exception:  # of a damaged EXIF
        return image.copy()
    return image


def _may_be_turned(data: bytes) -> bool:
    """Whether a PNG has a chunk that may tell its orientation, which may stand behind the pixels."""
    at = 8
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        words = (b"XML:com.adobe.xmp", b"Raw profile type exif") if kind in (b"tEXt", b"zTXt", b"iTXt") else ()
        if kind == b"eXIf" or data.startswith(words, at + 8):
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


# ----------------------------------------------------------------------------------------------------------- 8 bits RGB


def _rgb(image: Any, data: bytes) -> Image.Image:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        image = _shallow(image)
    elif image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] = _in_8_bits(image.info["transparency"], image.mode, _depth(data))
    if image.mode == "La":  # the one that Pillow converts in two steps only
        image = image.convert("LA")
    if not image.has_transparency_data:
        converted: Image.Image = image.convert("RGB")
        return converted
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")


def _depth(data: bytes) -> int:
    """Bits of a PNG's samples."""
    return data[24] if data[12:16] == b"IHDR" else 8


def _in_8_bits(value: Any, mode: str, depth: int) -> Any:
    """A PNG names its transparent colour in its own bits, and Pillow's pixels have 8."""
    if depth == 16 and isinstance(value, tuple):
        return tuple(part >> 8 for part in value)
    if mode == "L" and depth < 8 and isinstance(value, int):
        return value * 255 // ((1 << depth) - 1)
    return value


def _shallow(image: Any) -> Image.Image:
    """Grey of more than 8 bits as ``L``, or ``LA`` where a value stands for nothing."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;"):
        high = float((1 << min(16, tags.get(_BITS, (16,))[0])) - 1)
    elif image.format == "TIFF":
        finite = np.isfinite(values)
        low, high = _range(values[finite], image.mode == "F") if finite.any() else (0.0, 1.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    shallow = Image.fromarray(grey)
    nothing = image.info.get("transparency")
    if isinstance(nothing, int):
        shallow.putalpha(Image.fromarray(np.where(values == nothing, 0, 255).astype(np.uint8)))
    return shallow


def _range(values: Any, floats: bool) -> tuple[float, float]:
    """What black and white are. The file does not say, so it is the first range that holds all values."""
    low, high = float(values.min()), float(values.max())
    ranges = ((0.0, 1.0),) * floats + ((0.0, 255.0), (0.0, 65535.0))
    return next(((a, b) for a, b in ranges if a <= low and high <= b), (low, high))


def fit(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """The image, scaled down where it has more than ``max_pixels``; its shape stays."""
    if max_pixels is None or image.width * image.height <= max_pixels:
        return image
    scale = (max_pixels / (image.width * image.height)) ** 0.5
    return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
