"""Detections in a file: how they are read, which image they belong to, and what they make of a text."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.scorers.column_scorer import ColumnScorer
from reward.scorers.detections import DetectedObjectScorer, Detections
from reward.scorers.objects import ObjectScorer, judge
from reward.text.object_vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    "demo", "1", {"dog": "dog", "dogs": "dog", "puppy": "dog", "cat": "cat", "hot dog": "hot dog", "kite": "kite"}
)
DOG = {"label": "dog", "score": 0.9, "box": [0, 0, 1, 1]}
CAT = {"label": "cat", "score": 0.4, "box": {"xmin": 0}}
LISTED = [{"image": "a.jpg", "detections": [DOG, CAT]}, {"image": "b.jpg", "detections": []}]
KEYED = {"a.jpg": [DOG, CAT], "b.jpg": {"detections": []}}
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.9},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "score": 0.4},
    ],
}
NAMES = ("mentions", "hallucinated", "chair_i", "recall", "covered", "repeated", "unmatched")


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        path = tmp_path / "detections.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Detections.read(path, **options)

    return read


def row(*texts, path="x/a.jpg", facts=None, images=1):
    return {
        "images": [b"pixels"] * images,
        "paths": [path] * images,
        "prompt": [],
        "facts": facts,
        "candidates": [{"text": text} for text in texts],
    }


def values(scores, of_row=0, candidate=0):
    return tuple(scores[f"objects.{name}"][of_row][candidate] for name in NAMES)


@pytest.mark.parametrize("content", [LISTED, KEYED, COCO], ids=["list", "keyed", "coco"])
def test_every_layout_says_the_same(content, read):
    detections = read(content)
    assert [detections.labels_of(b"", f"{name}.jpg") for name in "abc"] == [{"dog"}, set(), None]
    assert detections.classes == {"dog", "cat"}
    assert read(content, threshold=0.4).labels_of(b"", "a.jpg") == {"dog", "cat"}


def test_annotations_without_a_score_are_the_truth(read):
    bare = {**COCO, "annotations": [{"image_id": 7, "category_id": 2}]}
    assert read(bare, threshold=1.0).labels_of(b"", "a.jpg") == {"cat"}


def test_coco_classes_count_though_nothing_of_them_was_found(read):
    assert read({**COCO, "annotations": []}).classes == {"dog", "cat"}
    assert read([{"image": "a", "detections": []}], classes=["dog"]).classes == {"dog"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot read the detections"),
        ("3", "give a list of entries, or an object keyed by image"),
        ([{"detections": []}], "entry 0: lacks image; it has detections"),
        ([{"image": "a"}], "entry 0: lacks detections"),
        ([{"image": 3, "detections": []}], "entry 0: image is '3'; give a str"),
        ([{"image": "a", "detections": [{"score": 0.5}]}], "entry 0, detection 0: lacks label"),
        ([{"image": "a", "detections": [DOG, {"label": 17, "score": 0.5}]}], "entry 0, detection 1: label is '17'"),
        ({"a": [{"label": "dog", "score": 97}]}, "image 'a', detection 0: score=97 is not between 0 and 1"),
        ({"a": [{"label": "dog", "score": True}]}, "score is 'True'"),
        ({"a": 3}, "image 'a': detections is '3'; give a list"),
        ([{"image_id": 7, "category_id": 1, "score": 0.9}], "results format, which names neither images nor classes"),
        ({**COCO, "annotations": [{"image_id": 9, "category_id": 1}]}, "annotations, entry 0: image_id=9"),
        ({**COCO, "annotations": [{"image_id": 7, "category_id": 9}]}, "annotations, entry 0: category_id=9"),
        ({"images": [{"id": 1}], "categories": []}, "images, entry 0: lacks file_name"),
    ],
)
def test_a_malformed_file_names_the_entry_and_the_key(content, says, read):
    with pytest.raises(ValueError, match=says):
        read(content)


def test_options_that_cannot_be_meant_are_errors(read, tmp_path):
    with pytest.raises(ValueError, match="threshold=50 must be between 0 and 1"):
        read(LISTED, threshold=50)
    with pytest.raises(ValueError, match="label 'cat' is none of the detector's classes"):
        read(LISTED, classes=["dog"])
    with pytest.raises(ValueError, match="cannot read"):
        Detections.read(tmp_path / "none.json")


# ------------------------------------------------------------------------------------------------------------- images


def test_an_image_is_known_by_its_content_whatever_it_is_called(read):
    digest = hashlib.sha256(b"pixels").hexdigest()
    for key in (digest, digest.upper(), f"sha256:{digest}"):
        detections = read({key: [DOG], "a.jpg": []})
        assert detections.labels_of(b"pixels", "elsewhere/q.png") == detections.labels_of(b"pixels", "a.jpg") == {"dog"}
        assert detections.labels_of(b"others", "a.jpg") == set() and detections.labels_of(b"others") is None


@pytest.mark.parametrize(
    ("key", "path", "fits"),
    [
        ("a.jpg", "/data/train/a.jpg", True),
        ("train/a.jpg", "/data/train/a.jpg", True),
        ("./train/a.jpg", "s3://bucket/train/a.jpg", True),
        ("val/a.jpg", "/data/train/a.jpg", False),
        ("/other/machine/a.jpg", "/data/train/a.jpg", True),
        ("C:\\images\\a.jpg", "/data/train/a.jpg", True),
        ("train/a.jpg", "a.jpg", True),
        ("a.jpg", "/data/ba.jpg", False),
        ("b c.jpg", "tar:///x/t.tar#offset=1&size=2&name=in/b%20c.jpg", True),
    ],
)
def test_which_names_mean_the_same_image(key, path, fits, read):
    assert (read({key: [DOG]}).labels_of(b"", path) is not None) == fits


def test_of_several_names_the_one_that_agrees_furthest_is_meant(read):
    detections = read({"a.jpg": [], "train/a.jpg": [DOG], "/m/val/a.jpg": [CAT | {"score": 1}], "/n/old/a.jpg": []})
    assert detections.labels_of(b"", "/data/train/a.jpg") == {"dog"}
    assert detections.labels_of(b"", "/data/val/a.jpg") == {"cat"}
    # Nothing says which of the two is meant, so neither is.
    assert read({"/m/val/a.jpg": [DOG], "/n/old/a.jpg": []}).labels_of(b"", "/data/a.jpg") is None


# ------------------------------------------------------------------------------------------------------------- scores


def test_texts_are_judged_by_what_was_found(read):
    scorer = DetectedObjectScorer(VOCABULARY, read(LISTED))
    scores = scorer.score([row("A puppy and a cat.", "Dogs, dogs."), row("A cat.", path="b.jpg")])
    assert set(scores) == {f"objects.{name}" for name in NAMES} == set(scorer.names)
    assert values(scores) == (2, 1, 0.5, 1.0, 1, 0, 0.0)
    assert values(scores, 0, 1) == (2, 0, 0.0, 1.0, 1, 1, 0.0)
    assert values(scores, 1) == (1, 1, 1.0, None, 0, 0, 0.0)  # nothing was found there, so there is nothing to cover


def test_objects_that_the_detector_cannot_find_are_not_judged(read):
    scorer = DetectedObjectScorer(VOCABULARY, read(LISTED))
    scores = scorer.score([row("A kite, a hot dog and a dog.")])
    assert values(scores) == (1, 0, 0.0, 1.0, 1, 0, 0.0)  # and the hot dog is no dog either
    assert judge("A kite and a dog.", frozenset({"kite"}), VOCABULARY, frozenset({"dog"})).truth == frozenset()


def test_an_image_that_the_file_does_not_know_is_counted_and_has_no_score(read):
    scores = DetectedObjectScorer(VOCABULARY, read(LISTED)).score([row("A dog.", "A cat.", path="z.jpg")])
    assert values(scores, 0, 0) == values(scores, 0, 1) == (None,) * 6 + (1.0,)


def test_facts_of_the_row_go_first_unless_the_file_is_to(read):
    facts = {"objects": [{"name": "kite"}], "answer": None}
    given = [row("A kite and a dog.", facts=facts)]
    assert values(DetectedObjectScorer(VOCABULARY, read(LISTED)).score(given)) == (2, 1, 0.5, 1.0, 1, 0, None)
    always = DetectedObjectScorer(VOCABULARY, read(LISTED), always=True)
    assert values(always.score(given)) == (1, 0, 0.0, 1.0, 1, 0, 0.0)


@pytest.mark.parametrize("always", [False, True])
def test_questions_and_prompts_without_an_image_are_not_asked_of_the_file(always, read):
    scorer = DetectedObjectScorer(VOCABULARY, read(LISTED), always)
    scores = scorer.score([row("Yes, a dog.", facts={"objects": [], "answer": "yes"}), row("A dog.", images=0)])
    assert values(scores, 0) == values(scores, 1) == (None,) * 7


def test_with_several_images_an_object_may_be_in_any_and_all_must_be_known(read):
    scorer = DetectedObjectScorer(VOCABULARY, read({"a.jpg": [DOG], "b.jpg": [CAT | {"score": 0.9}]}))
    both = {**row("A dog and a cat."), "images": [b"1", b"2"], "paths": ["a.jpg", "b.jpg"]}
    assert values(scorer.score([both])) == (2, 0, 0.0, 1.0, 2, 0, 0.0)
    assert values(scorer.score([{**both, "paths": ["a.jpg", "z.jpg"]}])) == (None,) * 6 + (1.0,)
    without = {key: value for key, value in both.items() if key != "paths"}
    assert values(scorer.score([without])) == (None,) * 6 + (1.0,)


def test_the_version_follows_what_the_file_says_and_how_it_is_read(read):
    def version(content, always=False, **options):
        return DetectedObjectScorer(VOCABULARY, read(content, **options), always).version

    before = version(LISTED)
    assert before == version(LISTED) and before.startswith("4:demo@1+")
    changed = [version(LISTED[:1]), version(LISTED, threshold=0.3), version(LISTED, always=True)]
    changed.append(version(LISTED, classes=["dog", "cat", "kite"]))
    assert len({before, *changed}) == 5


def test_it_is_asked_row_by_row_because_columns_hold_no_images(read):
    assert not isinstance(DetectedObjectScorer(VOCABULARY, read(LISTED)), ColumnScorer)


def test_a_detector_of_other_things_is_refused(read):
    with pytest.raises(ValueError, match="vocabulary 'demo' knows none of the detector's 1 classes"):
        DetectedObjectScorer(VOCABULARY, read({"a.jpg": [{"label": "zebra", "score": 1}]}))


things = st.sets(st.sampled_from(["dog", "cat", "hot dog", "kite"]))
texts = st.lists(st.sampled_from(["dog", "puppy", "cat", "hot dog", "kite", "and"]), max_size=8).map(" ".join)


@given(things, texts)
def test_a_detector_of_everything_gives_the_scores_of_facts(names, text):
    detections = Detections({"a.jpg": frozenset(names)}, VOCABULARY.objects, "v")
    scores = DetectedObjectScorer(VOCABULARY, detections).score([row(text)])
    facts = {"objects": [{"name": name} for name in names], "answer": None}
    plain = ObjectScorer(VOCABULARY).score([row(text, facts=facts)])
    if names:  # without any, facts say nothing, but a detector says that nothing is there
        assert {name: scores[name] for name in plain} == plain
    else:
        assert scores["objects.hallucinated"] == scores["objects.mentions"]


@given(things, things, texts)
def test_fewer_classes_never_add_a_mention_or_a_hallucination(labels, classes, text):
    every = judge(text, frozenset(labels), VOCABULARY)
    some = judge(text, frozenset(labels), VOCABULARY, frozenset(classes))
    assert set(some.hallucinated) <= set(every.hallucinated) and set(some.mentions) <= set(every.mentions)
    assert {mention.name for mention in some.mentions} | some.truth <= classes


def test_what_a_caption_names_is_there_though_the_detector_missed_it(read):
    told = {
        "images": [b""],
        "paths": ["a.jpg"],
        "facts": {"captions": ["A cat behind a dog."]},
        "candidates": [{"text": "A cat and a dog."}],
    }
    assert DetectedObjectScorer(VOCABULARY, read(COCO)).score([told])["objects.hallucinated"] == [[0.0]]
    bare = {**told, "facts": None}
    assert DetectedObjectScorer(VOCABULARY, read(COCO)).score([bare])["objects.hallucinated"] == [[1.0]]


def test_a_box_without_an_area_found_nothing_and_two_images_have_two_ids(read):
    flat = {**COCO["annotations"][0], "bbox": [0, 0, 0, 9]}
    detections = read({**COCO, "annotations": [flat]}, threshold=0.0)
    assert detections.labels_of(b"", "a.jpg") == set() and detections.classes == {"dog", "cat"}
    twice = [*COCO["images"], {"id": 7, "file_name": "c.jpg"}]
    with pytest.raises(ValueError, match=r"images, entry 2: id 7 is 'a.jpg' and 'c.jpg'"):
        read({**COCO, "images": twice})


def test_the_layouts_of_the_page_are_read(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()
    layouts = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert len(layouts) == 3
    for layout in layouts:
        (tmp_path / "found.json").write_text(layout)
        assert Detections.read(tmp_path / "found.json").labels["a.jpg"] == {"dog"}
