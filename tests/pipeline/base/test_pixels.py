"""What is seen in an encoded image, whoever looks."""

from __future__ import annotations

import io
import struct

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_kit import chunk, file, noise, pixels, raw_png, turned
from PIL import Image, ImageOps

from pipeline.base.images.pixels import BadImage, check, decode, final, is_final, look, size

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def as_others_see(data: bytes) -> list[np.ndarray]:
    """Readers that interpret, and one that does not."""
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    ours = datasets.Image().decode_example({"bytes": data, "path": None}).convert("RGB")
    return [pixels(plain), pixels(ours), pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))]


# ----------------------------------------------------------------------------------------------------------- which way


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_in_every_lossless_format(kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = turned(orientation, kind, **options)
    assert np.array_equal(pixels(decode(data)), noise()) and size(data) == (24, 16)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_what_datasets_shows(orientation, options):
    data = turned(orientation, "JPEG", **options)
    theirs = datasets.Image().decode_example({"bytes": data, "path": None})
    assert np.array_equal(pixels(decode(data)), pixels(theirs)) and decode(data).size == size(data) == (24, 16)


def test_an_orientation_may_stand_behind_the_pixels_of_a_png():
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    data = raw_png(24, 16, 8, 2, noise().tobytes(), late=chunk(b"eXIf", body))
    assert np.array_equal(pixels(decode(data)), np.rot90(noise(), -1))
    assert size(data) == (16, 24) and not is_final(data)


def test_an_orientation_may_stand_in_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    data = file(Image.fromarray(noise()), "JPEG", xmp=xmp)
    theirs = datasets.Image().decode_example({"bytes": data, "path": None})
    assert np.array_equal(pixels(decode(data)), pixels(theirs)) and not is_final(data)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = file(Image.fromarray(noise()), "PNG", exif=exif)
    assert np.array_equal(pixels(decode(data)), noise())


def test_a_damaged_exif_turns_nothing_and_is_not_passed_on():
    data = raw_png(24, 16, 8, 2, noise().tobytes(), chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\x01"))
    assert np.array_equal(pixels(decode(data)), noise())
    assert not is_final(data) and b"eXIf" not in final(data)


def test_nobody_can_turn_it_again():
    for data in (turned(6), turned(1), turned(6, "PNG"), turned(8, "TIFF")):
        image = decode(data)
        assert not image.info and not image.getexif() and ImageOps.exif_transpose(image).size == image.size
    # An id in the EXIF tells vLLM which picture it has seen: two pictures must not share one.
    exif = Image.Exif()
    exif[0xA420] = "same"
    assert not decode(file(Image.fromarray(noise()), "JPEG", exif=exif)).getexif()


# -------------------------------------------------------------------------------------------------------- transparency


def holes(mode):
    """Black, transparent but for a red square at the lower right."""
    image = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 3, 8, 6))
    return image.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        file(holes("RGBA")),
        file(holes("LA")),
        file(holes("RGBA"), "WEBP", lossless=True),
        file(holes("RGBA"), "TIFF"),
        file(holes("RGBA").quantize(4)),
        file(holes("RGBA"), "GIF"),
        file(holes("P").convert("PA"), "TIFF"),
        file(Image.new("RGB", (8, 6)), transparency=(0, 0, 0)),
        file(Image.new("L", (8, 6)), transparency=0),
        file(Image.new("1", (8, 6)), transparency=0),
        file(Image.new("P", (8, 6)), transparency=b"\0"),
        raw_png(8, 6, 2, 0, b"\xff\xff" * 6, chunk(b"tRNS", struct.pack(">H", 3))),
        raw_png(8, 6, 4, 0, b"\xbb" * 24, chunk(b"tRNS", struct.pack(">H", 11))),
        raw_png(8, 6, 16, 0, struct.pack(">H", 700) * 48, chunk(b"tRNS", struct.pack(">H", 700))),
        raw_png(8, 6, 16, 2, struct.pack(">HHH", 7, 800, 900) * 48, chunk(b"tRNS", struct.pack(">HHH", 7, 800, 900))),
        raw_png(8, 6, 16, 4, struct.pack(">HH", 0, 0) * 48),
        raw_png(8, 6, 16, 6, struct.pack(">HHHH", 0, 0, 0, 0) * 48),
    ],
)  # fmt: skip
def test_what_is_transparent_stands_on_white(data):
    image = decode(data)
    assert image.mode == "RGB" and image.getpixel((0, 0)) == WHITE and not is_final(data) and look(data)[1]


def test_half_transparent_is_half_white_and_opaque_stays():
    image = decode(file(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert image.getpixel((0, 0)) == (127, 127, 127)
    assert decode(file(holes("RGBA"))).getpixel((7, 5)) == (255, 0, 0)
    opaque = Image.fromarray(noise())
    assert np.array_equal(pixels(decode(file(opaque.convert("RGBA")))), noise())


# ------------------------------------------------------------------------------------------------------ 8 bits of RGB


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled(kind):
    data = file(Image.fromarray(np.array([[0, 128, 257 * 100, 32768, 65535]], np.uint16)), kind)
    assert pixels(decode(data))[0].tolist() == [[v] * 3 for v in (0, 0, 100, 128, 255)]
    assert not is_final(data)


def test_colours_of_16_bits_are_not_final_and_12_bits_have_their_own_white():
    deep = raw_png(1, 1, 16, 2, struct.pack(">HHH", 65535, 32896, 0))
    assert decode(deep).getpixel((0, 0)) == (255, 128, 0) and not is_final(deep)
    tiff = bytearray(file(Image.fromarray(np.full((1, 2), 65535, np.uint16)), "TIFF"))
    with Image.open(io.BytesIO(bytes(tiff))) as image:
        assert image.mode == "I;16"
    # 12 bits, packed: two values in three bytes.
    at = tiff.index(struct.pack("<HHIH", 258, 3, 1, 16))
    tiff[at : at + 10] = struct.pack("<HHIH", 258, 3, 1, 12)
    assert decode(bytes(tiff)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.array([[0, 0.5, 1]], np.float32), (0, 128, 255)),
        (np.array([[0, 100, 255]], np.float32), (0, 100, 255)),
        (np.array([[0, 100 * 257, 65535]], np.float32), (0, 100, 255)),
        (np.array([[-1, 0, 1]], np.float32), (0, 128, 255)),
        (np.array([[np.nan, 0, np.inf]], np.float32), (0, 0, 255)),
        (np.array([[0, 100, 255]], np.int32), (0, 100, 255)),
        (np.array([[0, 100 * 257, 65535]], np.int32), (0, 100, 255)),
        (np.array([[-1000, 0, 1000]], np.int32), (0, 128, 255)),
        (np.array([[np.nan, np.nan, np.nan]], np.float32), (0, 0, 0)),
    ],
)
def test_what_white_is_in_32_bits_follows_from_the_values(values, shown):
    assert pixels(decode(file(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == list(shown)


def test_white_is_zero_tells_tiff():
    data = bytearray(file(Image.fromarray(np.array([[0, 65535]], np.uint16)), "TIFF"))
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 1))
    data[at : at + 10] = struct.pack("<HHIH", 262, 3, 1, 0)
    assert pixels(decode(bytes(data)))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "YCbCr", "LAB"])
def test_other_colours_are_converted_as_pillow_does(mode):
    image = Image.fromarray(noise()).convert("RGB")
    image = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else (
        Image.fromarray(noise(), "LAB") if mode == "LAB" else image.convert(mode))  # fmt: skip
    kind = {"CMYK": "JPEG", "YCbCr": "TIFF", "LAB": "TIFF"}.get(mode, "PNG")
    data = file(image, kind)
    assert np.array_equal(pixels(decode(data)), pixels(Image.open(io.BytesIO(data)).convert("RGB")))
    assert is_final(data) == (mode == "L") and not look(data)[1]


# --------------------------------------------------------------------------------------------------------------- final


def test_a_final_file_is_kept_byte_for_byte():
    image = Image.fromarray(noise())
    for data in (
        file(image), file(image.convert("L")), file(image, "JPEG"), file(image.convert("L"), "JPEG"), turned(1),
        file(image, "JPEG", progressive=True, icc_profile=b"\0" * 200), file(image, "WEBP"), file(image, dpi=(72, 72)),
    ):  # fmt: skip
        assert is_final(data) and final(data) is data and not look(data)[1]


def test_of_several_frames_the_first_counts():
    first, second = Image.fromarray(noise(seed=1)), Image.fromarray(noise(seed=2))
    for kind, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("GIF", {})):
        data = file(first, kind, save_all=True, append_images=[second], **options)
        shown = pixels(first if kind != "GIF" else Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(pixels(decode(data)), shown) and not is_final(data)
        with Image.open(io.BytesIO(final(data))) as image:
            assert getattr(image, "n_frames", 1) == 1


MODES = st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "PA"])
KINDS = {
    "PNG": {"RGB", "RGBA", "L", "LA", "P", "1", "I;16"}, "JPEG": {"RGB", "L", "CMYK"}, "WEBP": {"RGB", "RGBA"},
    "GIF": {"P", "L"}, "BMP": {"RGB", "L", "P", "1"}, "PPM": {"RGB", "L", "1", "I;16", "I"},
    "TIFF": {"RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "PA"},
}  # fmt: skip


@st.composite
def encoded(draw) -> bytes:
    kind = draw(st.sampled_from(sorted(KINDS)))
    mode = draw(st.sampled_from(sorted(KINDS[kind])))
    width, height, seed = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 99))
    deep = np.random.default_rng(seed).integers(0, 65536, (height, width))
    made = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in made:
        image = Image.fromarray(deep.astype(made[mode]))
    elif mode in ("RGBA", "LA", "PA"):
        image = Image.fromarray(noise(width, height, seed, 4)).convert(mode)
    else:
        image = Image.fromarray(noise(width, height, seed)).convert(mode)
    options = {}
    if kind in ("PNG", "JPEG", "WEBP", "TIFF") and draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))
        options["exif"] = exif
    if kind in ("PNG", "GIF") and mode in ("L", "P") and draw(st.booleans()):
        options["transparency"] = draw(st.integers(0, 255))
    return file(image, kind, **options)


@given(encoded())
@settings(max_examples=150, deadline=None)
def test_every_reader_sees_in_the_final_file_what_decode_gives(data):
    shown, kept = pixels(decode(data)), final(data)
    assert is_final(kept) and final(kept) is kept
    for seen in as_others_see(kept):
        assert np.array_equal(seen, shown)
    assert size(data) == decode(data).size == size(kept)
    if is_final(data):
        for seen in as_others_see(data):
            assert np.array_equal(seen, shown)


# -------------------------------------------------------------------------------------------------------------- limits


def test_limits_are_known_from_the_header():
    data = file(Image.fromarray(noise()))
    check(data, 24 * 16, len(data))
    for limits in ((24 * 16 - 1, None), (None, len(data) - 1)):
        for look_at in (check, decode):
            with pytest.raises(BadImage) as caught:
                look_at(data, *limits)
            assert caught.value.kind == "image_too_large"
    decode(data, None, None)
    for bad in (b"", b"no image", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(BadImage):
            check(bad)
        assert not is_final(bad)


# ---------------------------------------------------------------------------------------------------------- real photos


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_real_photo_as_cameras_and_editors_save_it(name, orientation):
    """With a colour profile, a thumbnail in its EXIF, progressive, in CMYK as printers have it."""
    from PIL import ImageCms
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image(name)).resize((160, 106))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image, options in (
        (photo, {"icc_profile": profile}),
        (photo, {"progressive": True, "optimize": True, "quality": 95}),
        (photo.convert("L"), {"comment": b"grey"}),
        (photo.convert("CMYK"), {"icc_profile": b"\0" * 128}),
    ):
        data = turned(orientation, "JPEG", image, **options)
        theirs = datasets.Image().decode_example({"bytes": data, "path": None}).convert("RGB")
        assert np.array_equal(pixels(decode(data)), pixels(theirs)) and size(data) == photo.size
        assert is_final(data) == (orientation == 1 and image.mode != "CMYK")
        for seen in as_others_see(final(data)):
            assert np.array_equal(seen, pixels(theirs))
