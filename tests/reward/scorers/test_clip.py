import io
import json
import threading
from dataclasses import replace

import pytest
from PIL import Image

from reward.scorers import clip as clip_scorer
from reward.scorers.clip import CONFIG_FILE, WEIGHTS_FILE, ClipScorer, automatic_dtype

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
            words = model.encode_text(tokenizer(texts))
            expected = torch.nn.functional.cosine_similarity(seen, words)
            assert got == pytest.approx(expected.tolist(), abs=1e-5)
    assert len({round(value, 6) for values_of_row in values for value in values_of_row}) == 5


def test_does_not_depend_on_batches_or_neighbours(folder, scorer):
    rows = [row([RED], "a", "b"), row([BLUE], "a"), row([RED, BLUE], "c d")]
    together = scorer.score(rows)["clip.cosine"]
    alone = [ClipScorer(folder, batch_size=64, device="cpu").score([each])["clip.cosine"][0] for each in rows]
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


# --------------------------------------------------------------------------------------------- models of transformers

WORDS = ["<pad>", "<s>", "a", "</s>", "red", "thing", "blue", "boat", "sun"]


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    """A tiny random ``CLIPModel`` with its processor, as ``save_pretrained`` leaves them: PickScore's layout."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 3)])
    words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    same = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    # An end token other than 2, which transformers takes for a mistake of old configurations.
    text = {**same, "vocab_size": len(WORDS), "max_position_embeddings": 6, "eos_token_id": 3, "bos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**same, "image_size": 16, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hf-clip")
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), words
    ).save_pretrained(folder)
    return folder


def test_a_folder_of_transformers_gives_its_models_own_logits(hf_folder):
    """PickScore is exp(logit_scale) * cosine: the logits of the model itself, divided by that, are what is stored."""
    import torch
    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(hf_folder).eval(), CLIPProcessor.from_pretrained(hf_folder)
    texts = ["a red thing", "boat"]
    inputs = processor(
        text=texts, images=[Image.open(io.BytesIO(i)) for i in (RED, BLUE)], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**inputs).logits_per_image / model.logit_scale.exp()
    cosines = ClipScorer(hf_folder, device="cpu").score([row([RED], *texts), row([BLUE], *texts)])["clip.cosine"]
    for got, wanted in zip(cosines, expected.tolist(), strict=True):
        assert got == pytest.approx(wanted, abs=1e-5)
    assert len({round(value, 5) for of in cosines for value in of}) == 4


def test_texts_beyond_the_context_of_transformers_are_cut(hf_folder):
    scorer = ClipScorer(hf_folder, device="cpu")
    long = scorer.score([row([RED], "a red thing boat sun sun sun sun sun", "a red thing boat")])["clip.cosine"][0]
    assert long[0] == pytest.approx(long[1], abs=1e-6)


def test_a_processor_may_lie_elsewhere(hf_folder, tmp_path):
    import shutil

    weights, processor = tmp_path / "weights", tmp_path / "processor"
    weights.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(hf_folder / name, weights)
    shutil.copytree(hf_folder, processor, ignore=shutil.ignore_patterns("*.safetensors"))
    apart = ClipScorer(weights, device="cpu", processor=str(processor))
    whole = ClipScorer(hf_folder, device="cpu")
    before = apart.version
    assert apart.score([row([RED], "a boat")]) == whole.score([row([RED], "a boat")])
    (processor / "tokenizer.json").write_text((processor / "tokenizer.json").read_text() + " ")
    assert ClipScorer(weights, processor=str(processor)).version != before


def test_weights_that_are_not_there_are_refused(hf_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(hf_folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "text_projection.weight"}, broken / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as text_projection\.weight"):
        ClipScorer(broken, device="cpu").score([row([RED], "a boat")])


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({"config.json": '{"model_type": "llava"}'}, {}, "model_type 'llava'"),
        ({"config.json": "{"}, {}, r"cannot read config\.json"),
        ({"config.json": '{"model_type": "clip"}'}, {}, r"no \*\.safetensors"),
        ({"config.json": '{"model_type": "clip"}', "x.safetensors": ""}, {"pretrained": "a"}, "pretrained='a'"),
        ({CONFIG_FILE: "{}", WEIGHTS_FILE: ""}, {"processor": "b"}, "processor='b'"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(files, arguments, says, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        ClipScorer(tmp_path, **arguments)


def test_hub_ids_and_architectures_are_told_apart():
    from reward.models.clip_models import OpenClipModel, TransformersModel, find

    assert find("owner/name@a1", None) == TransformersModel("owner/name", "a1")
    assert find("hf-hub:owner/name", None) == OpenClipModel("hf-hub:owner/name", None, is_folder=False)
    assert find("ViT-H-14", "weights.pt") == OpenClipModel("ViT-H-14", "weights.pt", is_folder=False)
    assert find("owner/name@a1", None).identity() == "owner/name@a1"


# -------------------------------------------------------------------------------------------- checkpoints of open_clip


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """A tiny architecture that open_clip knows by name, as it knows ViT-H-14."""
    import open_clip

    path = tmp_path_factory.mktemp("configs") / "tiny-test-clip.json"
    path.write_text(json.dumps(MODEL))
    open_clip.add_model_config(path)
    return "tiny-test-clip"


@pytest.mark.parametrize("layout", ["safetensors", "plain", "nested"])
def test_a_checkpoint_for_an_architecture_is_read_in_every_layout(layout, architecture, folder, scorer, tmp_path):
    """``nested`` is how HPSv2 publishes its weights: beside an epoch and a name, for a model in ``module.``."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / WEIGHTS_FILE)
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pt")
    if layout == "safetensors":
        save_file(weights, path)
    elif layout == "plain":
        torch.save(weights, path)
    else:
        torch.save({"epoch": 1, "name": "x", "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    opened = ClipScorer(architecture, str(path), device="cpu")
    rows = [row([RED], "a red thing", "a boat"), row([BLUE], "sun")]
    assert opened.score(rows)["clip.cosine"][0] == pytest.approx(scorer.score(rows)["clip.cosine"][0], abs=1e-5)
    assert opened.version.startswith("1:tiny-test-clip@sha256:")


@pytest.fixture
def tags(architecture, folder, monkeypatch):
    """Two tags of the tiny architecture, of which one was trained with QuickGELU, as openai's were. Their weights are
    the same; nothing is fetched."""
    import open_clip.factory
    import open_clip.pretrained

    published = {"openai": {"quick_gelu": True, "url": "quick"}, "laion": {"url": "plain"}}
    for name in (architecture, f"{architecture}-quickgelu"):
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, published)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(folder / WEIGHTS_FILE))
    return architecture


def published_cosines(folder, quick, texts):
    """By hand: the network with the activation put into it, and with nothing of ``reward``."""
    import open_clip
    import torch

    class Quick(torch.nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    plain = [(parent, name) for parent in model.modules() for name, child in parent.named_children()
             if isinstance(child, torch.nn.GELU)]  # fmt: skip
    assert len(plain) == 2  # a layer of each tower
    for parent, name in plain if quick else ():
        setattr(parent, name, Quick())
    with torch.no_grad():
        seen = model.eval().encode_image(preprocess(Image.open(io.BytesIO(RED)))[None])
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts))
    return torch.nn.functional.cosine_similarity(seen, words).tolist()


def test_a_tag_is_opened_with_the_activation_that_it_was_trained_with(tags, folder):
    texts = ["a red thing", "a boat", "sun"]
    quick, plain = (published_cosines(folder, with_quick, texts) for with_quick in (True, False))
    assert min(abs(first - second) for first, second in zip(quick, plain, strict=True)) > 1e-5
    for tag, expected in (("openai", quick), ("OpenAI", quick), ("laion", plain)):
        cosines = ClipScorer(tags, tag, device="cpu").score([row([RED], *texts)])["clip.cosine"][0]
        assert cosines == pytest.approx(expected, abs=1e-6), tag


def test_what_was_scored_with_the_wrong_activation_has_another_version(tags, folder):
    assert ClipScorer(tags, "openai").version == f"2:{tags}@openai"
    assert ClipScorer(tags, str(folder / WEIGHTS_FILE)).version.startswith(f"1:{tags}@sha256:")
    assert ClipScorer(folder).version.startswith("1:sha256:")


def test_every_published_tag_gets_its_activation(monkeypatch):
    """All that open_clip lists, in the architecture that it is listed for and in the one called quickgelu."""
    import open_clip
    from open_clip.factory import get_model_config

    from reward.models.clip_models import OpenClipModel

    class Opened(Exception):
        pass

    def create(name, *, pretrained, force_quick_gelu, **_):
        raise Opened(force_quick_gelu or get_model_config(name).get("quick_gelu", False))

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    wrong = set()
    for name, tag in open_clip.list_pretrained():
        with pytest.raises(Opened) as opened:
            OpenClipModel(name, tag, is_folder=False).open("cpu")
        if opened.value.args[0] != open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False):
            wrong.add((name, tag))
    # Its architecture says QuickGELU and its tag nothing; there is no -quickgelu to tell them apart.
    assert wrong == {("roberta-ViT-B-32", "laion2b_s12b_b32k")}


@pytest.mark.parametrize("words", [13, 14, 15, 16, 40])
def test_a_text_is_cut_if_it_is_longer_than_the_context(words, scorer):
    """The tiny network reads 16 tokens, of which two are the begin and the end."""
    short, text = "sun", " ".join(["sun"] * words)
    flags = scorer.flags([row([RED], text, short, " "), row([], text)])
    assert flags == {"clip.cut": [[float(words > 14), 0.0, None], [None]]}
    assert scorer.cut([text, "", short]) == [words > 14, None, False]


@pytest.mark.parametrize(("text", "cut"), [("a red thing boat", 0.0), ("a red thing boat sun", 1.0)])
def test_a_text_is_cut_if_it_is_longer_than_the_context_of_transformers(text, cut, hf_folder):
    scorer = ClipScorer(hf_folder, device="cpu", batch_size=1)
    assert scorer.flags([row([RED], text, "a")]) == {"clip.cut": [[cut, 0.0]]}


class Anything:
    """Something that is no tensor."""


def test_a_checkpoint_with_pickled_objects_is_refused(architecture, folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    path = tmp_path / "w.pt"
    torch.save({"state_dict": load_file(folder / WEIGHTS_FILE), "optimizer": Anything()}, path)
    with pytest.raises(ValueError, match=r"pickled objects.*save its state dict as safetensors"):
        ClipScorer(architecture, str(path), device="cpu").score([row([RED], "a")])


# ---------------------------------------------------------------------------------------------------- several images


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_images_of_one_text_have_the_values_that_a_row_with_each_alone_has(kind, scorer, hf_folder):
    ranker = scorer if kind == "open_clip" else ClipScorer(hf_folder, batch_size=1, device="cpu")
    cosines = ranker.score_images([("a boat", [RED, BLUE]), ("sun", [BLUE]), ("sun", [])])
    alone = ranker.score([row([RED], "a boat"), row([BLUE], "a boat"), row([BLUE], "sun")])["clip.cosine"]
    assert [len(of) for of in cosines] == [2, 1, 0]
    assert [value for of in cosines for value in of] == pytest.approx([of[0] for of in alone], abs=1e-6)
    assert cosines[0][0] != cosines[0][1]


def test_ranking_names_the_row_that_cannot_be_ranked(scorer):
    with pytest.raises(ValueError, match="row 1: the text is empty"):
        scorer.score_images([("a", [RED]), (" ", [RED])])
    with pytest.raises(ValueError, match="row 1, image 1: cannot be decoded"):
        scorer.score_images([("a", [RED]), ("b", [RED, b"no image"])])
    assert scorer.score_images([]) == []


COLOURS = [png((40 * number, 255 - 40 * number, 7)) for number in range(5)]


def test_images_are_read_in_threads_and_batches_are_full(folder, scorer, monkeypatch):
    names, sizes = set(), []
    clip = ClipScorer(folder, batch_size=2, device="cpu")
    encoders = clip._clip

    def prepare(image):
        names.add(threading.current_thread().name.partition("_")[0])
        return encoders.prepare(image)

    def images(batch):
        sizes.append(len(batch))
        return encoders.images(batch)

    monkeypatch.setitem(clip.__dict__, "_clip", replace(encoders, prepare=prepare, images=images))
    rows = [row([image], "a sun", "a boat") for image in [*COLOURS, COLOURS[0]]]
    values = clip.score(rows)["clip.cosine"]
    assert names == {"clip"} and sizes == [2, 2, 1]
    alone = [scorer.score([each])["clip.cosine"][0] for each in rows]
    assert [v for r in values for v in r] == pytest.approx([v for r in alone for v in r], abs=1e-6)
    assert values[0] == values[-1] != values[1]


@pytest.mark.parametrize("kind", ["folder", "hf_folder"])
def test_products_are_computed_in_bfloat16_where_there_is_a_gpu(kind, request, monkeypatch):
    place = request.getfixturevalue(kind)
    rows = [row([image], "a sun", "a boat") for image in COLOURS]
    exact, half = (ClipScorer(place, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    of_exact, of_half = ([v for r in of.score(rows)["clip.cosine"] for v in r] for of in (exact, half))
    assert of_half == pytest.approx(of_exact, abs=0.03) and of_half != pytest.approx(of_exact, abs=1e-6)
    assert len({exact.version, half.version, ClipScorer(place).version}) == 3
    for device, expected in (("cpu", of_exact), ("cuda", of_half)):
        monkeypatch.setattr(clip_scorer, "automatic_dtype", lambda _, device=device: automatic_dtype(device))
        values = ClipScorer(place, device="cpu").score(rows)["clip.cosine"]
        assert [v for r in values for v in r] == expected
