import io
import json

import pytest
from PIL import Image

from reward.clip import CONFIG_FILE, WEIGHTS_FILE, ClipScorer

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = png((255, 0, 0)), png((0, 0, 255))


def row(images, *texts):
    return {"images": images, "prompt": [], "facts": None, "candidates": [{"text": text} for text in texts]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP, saved as open_clip's ``local-dir:`` schema reads it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip")
    model = open_clip.CLIP(**MODEL)
    save_file(model.state_dict(), path / WEIGHTS_FILE)
    (path / CONFIG_FILE).write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": {}}))
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return ClipScorer(folder, batch_size=2, device="cpu")


def test_equals_the_cosine_of_open_clips_own_embeddings(scorer, folder):
    import open_clip
    import torch

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    values = scorer.score([row([RED], "a red thing", "a boat"), row([BLUE], "a boat", "sun", "cup")])["clip.cosine"]
    with torch.no_grad():
        for image, texts, got in (
            (RED, ["a red thing", "a boat"], values[0]),
            (BLUE, ["a boat", "sun", "cup"], values[1]),
        ):
            seen = model.encode_image(preprocess(Image.open(io.BytesIO(image)))[None])
            said = model.encode_text(tokenizer(texts))
            expected = torch.nn.functional.cosine_similarity(seen, said)
            assert got == pytest.approx(expected.tolist(), abs=1e-5)
    assert len({round(value, 6) for values_of_row in values for value in values_of_row}) == 5


def test_does_not_depend_on_batches_or_neighbours(folder, scorer):
    rows = [row([RED], "a", "b"), row([BLUE], "a"), row([RED, BLUE], "c d")]
    together = scorer.score(rows)["clip.cosine"]
    alone = [ClipScorer(folder, batch_size=64, device="cpu").score([one])["clip.cosine"][0] for one in rows]
    assert [v for r in together for v in r] == pytest.approx([v for r in alone for v in r], abs=1e-5)


def test_several_images_are_averaged(scorer):
    red, blue, both = (scorer.score([row(images, "a")])["clip.cosine"][0][0] for images in ([RED], [BLUE], [RED, BLUE]))
    assert both == pytest.approx((red + blue) / 2, abs=1e-6)


def test_each_distinct_image_is_encoded_once(scorer, monkeypatch):
    encoded = []
    encode = scorer._clip.model.encode_image
    monkeypatch.setattr(
        scorer._clip.model, "encode_image", lambda x, **options: encoded.append(len(x)) or encode(x, **options)
    )
    scorer.score([row([RED], "a", "b", "c"), row([RED], "d"), row([BLUE], "a")])
    assert sum(encoded) == 2


def test_null_without_image_or_text(scorer):
    rows = [row([], "a"), row([RED], "", "  ", "a"), row([BLUE])]
    values = scorer.score(rows)["clip.cosine"]
    assert values[0] == [None] and values[1][:2] == [None, None] and values[2] == []
    assert isinstance(values[1][2], float)
    assert scorer.score([row([], "a")]) == {"clip.cosine": [[None]]}


def test_an_image_that_cannot_be_decoded_names_its_row(scorer):
    with pytest.raises(ValueError, match="row 1, image 0: cannot be decoded"):
        scorer.score([row([RED], "a"), row([b"no image"], "a")])


def test_random_weights_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="needs pretrained weights"):
        ClipScorer("ViT-B-32")
    with pytest.raises(ValueError, match=f"lacks {CONFIG_FILE} and {WEIGHTS_FILE}"):
        ClipScorer(tmp_path)
    with pytest.raises(ValueError, match="has no meaning for the folder"):
        ClipScorer(folder, pretrained="openai")


def test_version_follows_the_weights_not_the_place(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("a card")
    assert ClipScorer(copy).version == ClipScorer(folder).version
    (copy / CONFIG_FILE).write_text((copy / CONFIG_FILE).read_text() + " ")
    assert ClipScorer(copy).version != ClipScorer(folder).version
