"""CHAIR's words, quirk by quirk, and CHAIR on COCO annotations."""

import json
import sys
import types
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import DataError
from training.evaluation import coco_annotations as coco
from training.evaluation.benchmarks import chair
from training.evaluation.benchmarks.chair import Chair
from training.evaluation.question import Answer
from training.evaluation.words.coco_words import read_synonyms, words
from training.evaluation.words.lemmas import NltkNouns
from training.evaluation.words.singular import singular
from training.evaluation.words.treebank import tokens

#: A few lines in CHAIR's layout, with its faults: double spaces, a space at the end, a capital, a third word.
SYNONYMS = """\
person, man, woman, child, passenger, baby
bus, minibus
train, locomotive
motorcycle,  motor bike, scooter
traffic light, street light
parking meter
bird, duck
dog, puppy
cow, ox, bison\x20
tie, bow
skis, ski
wine glass
tennis racket, racket
boat, canoe, ferry
chair, seat
toilet
hot dog
bear, cub
teddy bear
oven, stove top oven
cell phone, phone, iPhone
scissors
knife, knive
mouse
dining table, table
"""


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text(SYNONYMS)
    return path


@pytest.fixture
def standalone(listed):
    return words("standalone", listed)


def named(vocabulary, text):
    return [mention.name for mention in vocabulary.mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog.", ["dog", "."]),
        ("dogs' toys", ["dogs", "'", "toys"]),
        ("the dog's", ["the", "dog", "'s"]),
        ("the dog\u2019s", ["the", "dog", "\u2019", "s"]),
        ("'dog'", ["'", "dog", "'"]),
        ("isn't", ["is", "n't"]),
        ("'s", ["'s"]),
        ('"dog," he said.', ['"', "dog", ",", '"', "he", "said", "."]),
        ("3,000 at 3:15, 2.5", ["3,000", "at", "3:15", ",", "2.5"]),
        ("dog...cat", ["dog", "...", "cat"]),
        ("dog... 'cat's", ["dog", "...", "'", "cat", "'s"]),
        ("dog/'cat'", ["dog/", "'", "cat", "'"]),
        ("dog--cat dog-cat", ["dog", "--", "cat", "dog-cat"]),
        ("man/woman _dog_ **dog**", ["man/woman", "_dog_", "*", "*", "dog", "*", "*"]),
        ("dogs\u2014cats", ["dogs", "\u2014", "cats"]),
        ("(dog) [cat] {a}<b>", ["(", "dog", ")", "[", "cat", "]", "{", "a", "}", "<", "b", ">"]),
        ("dog.) Cat", ["dog", ".", ")", "Cat"]),
        ("dog.cat", ["dog.cat"]),
        ("a:b 1:b", ["a", ":", "b", "1", ":", "b"]),
    ],
)
def test_words_are_cut_as_the_treebank_does(text, expected):
    assert [token.text for token in tokens(text)] == expected


@given(st.text(alphabet="ab '.,:;-\"()\n3s\u2019`*", max_size=20))
def test_every_letter_is_in_exactly_one_token_at_its_place(text):
    spans = tokens(text)
    assert all(text[start:end] == word and word for start, end, word in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert "".join(token.text for token in spans) == "".join(text.split())


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("dogs", "dog"), ("buses", "bus"), ("benches", "bench"), ("knives", "knife"), ("mice", "mouse"),
        ("sheep", "sheep"), ("people", "person"), ("women", "woman"), ("children", "child"), ("babies", "baby"),
        ("turkeys", "turkey"), ("geese", "goose"), ("oxen", "ox"), ("calves", "calf"), ("gloves", "glove"),
        ("stoves", "stove"), ("vases", "vase"), ("horses", "horse"), ("toothbrushes", "toothbrush"), ("shoes", "shoe"),
        ("leaves", "leaf"), ("skis", "ski"), ("scissors", "scissors"), ("taxis", "taxi"), ("glasses", "glass"),
        ("noses", "nose"), ("loaves", "loaf"),
    ],
)  # fmt: skip
def test_plurals_become_singular(plural, expected):
    assert singular(plural) == expected


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("bus", "bu"), ("glass", "glas"), ("tennis", "tenni"), ("sports", "sport"), ("ties", "ty"), ("canoes", "cano"),
        ("doggies", "doggies"), ("thieves", "thieve"), ("ears", "ears"), ("s", "s"), ("is", "is"), ("pizza", "pizza"),
        ("gas", "ga"), ("beta", "betum"),
    ],
)  # fmt: skip
def test_the_faults_of_the_published_rules_are_kept(word, kept):
    assert singular(word) == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man and two dogs.", ["person", "dog"]),
        ("Dogs, dogs and a puppy", ["dog", "dog", "dog"]),  # repeats count
        ("a bus", []),  # its singular is "bu"
        ("two buses", ["bus"]),
        ("a motor bike", []),  # listed with a space too many
        ("a scooter", ["motorcycle"]),
        ("a street light", ["traffic light"]),
        ("street, light", []),  # the comma keeps them apart
        ("baby bird, adult dogs", ["bird", "dog"]),
        ("a baby and a bird", ["person", "bird"]),
        ("a bear cub, a baby cub", ["bear", "bear", "bear"]),
        ("a passenger train", ["train"]),
        ("a passenger on a train", ["person", "train"]),
        ("train tracks", []),
        ("a wine glass, wine glasses", ["wine glass", "wine glass"]),
        ("a tennis racket", ["tennis racket"]),  # "tenni racket" is no pair, but "racket" is listed
        ("a bow tie", ["tie"]),
        ("ties", []),
        ("two bows", ["tie"]),
        ("canoes and a canoe", ["boat"]),
        ("ferries", ["boat"]),
        ("skis and a ski", ["skis", "skis"]),
        ("a chair, a seat", ["chair", "chair"]),
        ("the seat of the toilet", ["toilet"]),
        ("a toilet seat", ["toilet"]),
        ("a hot dog and a dog", ["hot dog", "dog"]),
        ("hot hot dog", ["hot dog"]),
        ("teddy bears", ["teddy bear"]),
        ("a stove top oven", ["oven"]),  # by "oven" alone
        ("an iPhone", []),  # texts are lower-cased, the list is not
        ("bison", ["cow"]),
        ("man/woman, dog-cat", []),
        ("the man's dog", ["person", "dog"]),
    ],
)
def test_captions_name_what_the_standalone_script_finds_in_them(standalone, text, expected):
    assert named(standalone, text) == expected


def test_mentions_say_where_they_stand(standalone):
    text = "A Teddy  Bear, dogs"
    assert [text[mention.start : mention.end] for mention in standalone.mentions(text)] == ["Teddy  Bear", "dogs"]


@pytest.mark.parametrize("variant", ["original", "standalone"])
@pytest.mark.parametrize("text", ["train track", "Two train tracks.", "the 'train track'"])
def test_a_train_track_names_no_object(listed, variant, text):
    """In Rohrbach et al.'s own script since 2019."""
    assert named(words(variant, listed), text) == []
    assert named(words(variant, listed), "a train on a track") == ["train"]


@pytest.mark.parametrize("variant", ["original", "standalone", "coco80", "object_halbench", "lmms_eval"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the sign says 'hot dog.'", ["hot dog"]),
        ("the sign says 'hot dog.' and 'dog'.", ["hot dog", "dog"]),
        ("'A dog.' 'A hot dog!' \"A chair.\" (A bear.) ‘A cow.’", ["dog", "hot dog", "chair", "bear", "cow"]),
        ("He said 'dog.'", ["dog"]),
        ("a toilet.\" A dog.'", ["toilet", "dog"]),
    ],
)
def test_a_full_stop_within_quotation_marks_is_no_part_of_a_word(listed, real_nltk, variant, text, expected):
    vocabulary = words(variant, None if variant == "coco80" else listed)
    names = [name for name in named(vocabulary, text) if name != "person"]
    assert names == expected


def test_a_word_on_two_lines_belongs_to_the_later_one(tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("a, x\nb, x\n")
    assert read_synonyms(path).classes == {"a": "a", "b": "b", "x": "b"}


def test_the_version_follows_the_list(listed, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(SYNONYMS + "zebra\n")
    first, second = words("standalone", listed), words("standalone", other)
    assert first.version.startswith("standalone:synonyms@") and first.version != second.version
    assert words("original", listed).version != first.version


def test_coco80_knows_the_classes_in_singular_and_plural_and_no_synonyms():
    vocabulary = words("coco80")
    assert len(set(vocabulary.synonyms.classes.values())) == 80
    assert all(vocabulary.class_of(name) == name for name in vocabulary.synonyms.classes.values())
    text = "A bus, two buses, people, mice, wine glasses, teddy bears, train tracks, a bow tie, a man, potted plants."
    assert named(vocabulary, text) == [
        "bus", "bus", "person", "mouse", "wine glass", "teddy bear", "tie", "potted plant"
    ]  # fmt: skip
    assert named(vocabulary, "baby birds and hot dogs") == ["bird", "hot dog"]


def test_missing_and_unknown_lists_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"--synonyms FILE.*--variant coco80"):
        words("standalone")
    with pytest.raises(DataError, match="unknown; use one of standalone"):
        words("mine")
    with pytest.raises(DataError, match=r"there is no file .*; give --synonyms FILE"):
        words("standalone", tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="names no class"):
        words("standalone", tmp_path / "empty.txt")
    with pytest.raises(DataError, match="has a list of its own"):
        words("coco80", tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        # As NLTK's word_tokenize cuts them.
        ("a 'dog.' he", ["a", "'", "dog", ".", "'", "he"]),
        ("'dog.' 'cat'.", ["'", "dog", ".", "'", "'", "cat", "'", "."]),
        ('a "dog." he', ["a", '"', "dog", ".", '"', "he"]),
        ("a dog.') he", ["a", "dog", ".", "'", ")", "he"]),
        ("a dog.’ he", ["a", "dog", ".", "’", "he"]),
        ("a dog., he", ["a", "dog.", ",", "he"]),
        ("a dog.! he", ["a", "dog.", "!", "he"]),
        ("a dog.'. he", ["a", "dog.", "'", ".", "he"]),
        ("a dog.'.", ["a", "dog", ".", "'", "."]),
        ("the dogs'. it", ["the", "dogs", "'", ".", "it"]),
        ("a dog... 'tis 3.5 m.", ["a", "dog", "...", "'", "tis", "3.5", "m", "."]),
        ("'.'", ["'", ".", "'"]),
    ],
)
def test_words_are_cut_where_nltk_cuts_them(text, cut):
    spans = tokens(text)
    assert [token.text for token in spans] == cut
    assert all(text[token.start : token.end] == token.text for token in spans)


@given(st.text(alphabet="ab .'\"`,!?)(”’-:3\n", max_size=30))
def test_every_sign_but_blanks_is_in_one_token_and_they_are_in_order(text):
    assert "".join(token.text for token in tokens(text)) == "".join(text.split())


def test_variants_with_wordnet_fail_without_it(listed, monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    for variant in ("lmms_eval", "object_halbench"):
        with pytest.raises(DataError, match="NLTK is not installed; pip install nltk"):
            words(variant, listed)


def install(monkeypatch, word_tokenize, pos_tag, lemmas):
    """An NLTK of so many rules; the words that it does not know are their own lemmas."""

    class Lemmatiser:
        def lemmatize(self, word, pos="n"):
            return lemmas.get((word, pos), word)

    module, stem = types.ModuleType("nltk"), types.ModuleType("nltk.stem")
    module.pos_tag, module.word_tokenize, module.__version__ = pos_tag, word_tokenize, "0"
    stem.WordNetLemmatizer = Lemmatiser
    monkeypatch.setitem(sys.modules, "nltk", module)
    monkeypatch.setitem(sys.modules, "nltk.stem", stem)
    return module


@pytest.fixture
def nltk(monkeypatch):
    """Knows two words: "skis" is a verb, and "runs" is changed only as one."""
    return install(
        monkeypatch,
        str.split,
        lambda words_given: [(word, "VBZ" if word in ("skis", "runs") else "NN") for word in words_given],
        {("runs", "v"): "run", ("dogs", "n"): "dog", ("skis", "v"): "ski"},
    )


@pytest.fixture
def real_nltk(monkeypatch):
    """Behaves as NLTK does: a double quotation mark becomes two single ones, by which the tagger knows it. Behind one
    that it does not know, it takes "parking" for a verb."""

    def word_tokenize(text):
        cut, opens = [], True
        for token in tokens(text):
            cut.append(("``" if opens else "''") if token.text == '"' else token.text)
            opens = opens != (token.text == '"')
        return cut

    def pos_tag(words_given):
        behind = zip(["", *words_given[:-1]], words_given, strict=True)
        return [(word, "VBG" if word == "parking" and last == '"' else "NN") for last, word in behind]

    lemmas = {("parking", "v"): "park", ("dogs", "n"): "dog"}
    return install(monkeypatch, word_tokenize, pos_tag, lemmas)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('the "parking meter"', ["parking meter"]),
        ("\"parking meter.\" A \"hot dog\" and ''dogs''", ["parking meter", "hot dog", "dog"]),
    ],
)
def test_lmms_eval_tags_the_words_that_nltk_cuts(listed, real_nltk, text, expected):
    vocabulary = words("lmms_eval", listed)
    assert named(vocabulary, text) == expected
    mentions = vocabulary.mentions(text)
    assert [text[mention.start : mention.end] for mention in mentions] == [
        part for part in ("parking meter", "hot dog", "dogs") if part in text
    ]


@pytest.mark.parametrize(
    ("broken", "named_missing"),
    [
        (("word_tokenize",), r"\(punkt_tab\)"),
        (("pos_tag",), r"\(averaged_perceptron_tagger_eng\)"),
        (("word_tokenize", "pos_tag"), r"\(punkt_tab, averaged_perceptron_tagger_eng\)"),
    ],
)
@pytest.mark.parametrize("use", ["lmms_eval", "object_halbench", "amber"])
def test_missing_data_of_nltk_are_named_with_all_that_is_needed(listed, nltk, broken, named_missing, use):
    def lost(_):
        raise LookupError("\n*****\n Resource not found\n*****\n")

    for name in broken:
        setattr(nltk, name, lost)
    with pytest.raises(DataError, match=named_missing) as error:
        NltkNouns() if use == "amber" else words(use, listed)
    message = str(error.value)
    assert "\n" not in message
    assert "nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet omw-1.4" in message


def test_lmms_eval_lemmatises_by_part_of_speech_and_object_halbench_takes_all_for_nouns(listed, nltk):
    assert named(words("lmms_eval", listed), "dogs skis bus") == ["dog", "skis", "bus"]
    assert [mention.surface for mention in words("lmms_eval", listed).mentions("skis")] == ["ski"]
    assert [mention.surface for mention in words("object_halbench", listed).mentions("skis")] == ["skis"]


def test_object_halbench_merges_every_listed_pair_and_trims_the_list(listed, nltk):
    vocabulary = words("object_halbench", listed)
    assert named(vocabulary, "a motor bike and a dining table") == ["motorcycle", "dining table"]
    assert named(words("lmms_eval", listed), "a motor bike, a dining table") == ["dining table"]


# Annotations ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def annotated(tmp_path, listed):
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bus"}]

    def write(part, images, boxes, captions):
        (tmp_path / f"instances_{part}2014.json").write_text(
            json.dumps(
                {
                    "info": {},
                    "images": [{"id": id, "file_name": f"{id}.jpg"} for id in images],
                    "annotations": [{"image_id": image, "category_id": category} for image, category in boxes],
                    "categories": categories,
                }
            )
        )
        (tmp_path / f"captions_{part}2014.json").write_text(
            json.dumps(
                {
                    "images": [{"id": id} for id in images],
                    "annotations": [{"image_id": image, "caption": text} for image, text in captions],
                }
            )
        )

    write("val", [1, 2, 3], [(1, 2), (1, 1), (1, 2), (2, 3)], [(1, "A scooter."), (2, "A bus."), (2, "Nothing.")])
    write("train", [4], [(4, 1)], [(1, "Two birds."), (4, "A dog.")])
    return tmp_path


def test_instances_and_captions_are_joined_by_image(annotated):
    images = coco.instances(coco.paths(annotated, "instances"))
    assert images[1] == coco.Annotated("1.jpg", ("dog", "person"))  # in the order of the boxes, each once
    assert images[3].categories == ()
    assert coco.captions(coco.paths(annotated, "captions"), {1}) == {1: ["Two birds.", "A scooter."]}


def test_the_truth_is_what_is_annotated_or_captioned_and_val_images_are_described(annotated):
    by_id = {question.id: question for question in Chair(limit=None).questions(annotated)}
    assert set(by_id) == {"1", "2", "3"}
    assert by_id["1"].image == "1.jpg"
    assert by_id["1"].truth["objects"] == ["bird", "dog", "motorcycle", "person"]
    assert by_id["2"].truth["objects"] == ["bus"]  # by its annotation: the caption's "bus" is not found
    assert by_id["3"].truth["objects"] == []
    json.dumps([question.truth for question in by_id.values()])


def test_captions_that_are_not_there_are_no_empty_truth(annotated):
    """Without the file of a split, what its captions name would be held against a model."""
    (annotated / "captions_train2014.json").unlink()
    assert len(Chair(limit=None).questions(annotated)) == 3  # image 3 is listed, and nobody has described it
    with pytest.raises(DataError, match=r"image 4 has no caption in captions_\*.json of .* \(1 of 2 .*its split"):
        Chair(ids=(1, 4)).questions(annotated)
    (annotated / "captions_val2014.json").write_text('{"annotations": [{"image_id": 1, "caption": "A scooter."}]}')
    with pytest.raises(DataError, match="image 2 has no caption"):
        Chair(ids=(1, 2), variant="coco80").questions(annotated)
    assert len(Chair(ids=(1,)).questions(annotated)) == 1
    (annotated / "captions_val2014.json").write_text('{"images": [{"file_name": "1.jpg"}]}')
    with pytest.raises(DataError, match=r"captions_val2014.json, element 1 \(in 'images'\): lacks 'id'"):
        Chair(ids=(1,)).questions(annotated)


def test_images_can_be_chosen_or_drawn(annotated):
    assert [question.id for question in Chair(ids=(4, 1, 4)).questions(annotated)] == ["4", "1"]
    two = [question.id for question in Chair(limit=2, seed=3).questions(annotated)]
    assert len(two) == 2 and two == [question.id for question in Chair(limit=2, seed=3).questions(annotated)]
    with pytest.raises(DataError, match="only 3 are annotated; ask for fewer with --limit 3"):
        Chair(limit=9).questions(annotated)
    with pytest.raises(
        DataError, match=r"suite chair: 1 of 2 ids of the list of ids are none of its 4 images, the first is 7"
    ):
        Chair(ids=(1, 7)).questions(annotated)


def test_a_category_that_the_list_does_not_know_is_an_error(annotated, listed):
    listed.write_text("dog\n")
    with pytest.raises(DataError, match="category 'person' is not in the list of synonyms"):
        Chair(ids=(1,)).questions(annotated)


def test_broken_annotations_are_named(annotated):
    path = annotated / "instances_val2014.json"
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(DataError, match=r"instances_val2014.json, element 1 \(in 'images'\): lacks 'file_name'"):
        coco.instances([path])
    path.write_text('{"images": [], "annotations": [{"image_id": 1, "category_id": 9}]}')
    with pytest.raises(DataError, match="category 9 is annotated but not listed"):
        coco.instances([path])
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        coco.instances([path])
    path.unlink()
    (annotated / "instances_train2014.json").unlink()
    with pytest.raises(DataError, match=r"holds no instances_\*.json"):
        Chair().questions(annotated)


def test_chair_by_hand(annotated, standalone):
    questions = Chair(ids=(1, 2, 3)).questions(annotated)
    answers = {
        "1": Answer("A dog, dogs and a cow."),  # 3 mentions, 1 wrong; 1 of 4 true classes
        "2": Answer("A bus in a street."),  # names nothing; 0 of 1
        "3": Answer("A man.", finish_reason="length"),  # 1 wrong; nothing is there
    }
    tally = chair.score(questions, answers, standalone)
    assert tally.values() == {
        "chair_i": 2 / 4, "chair_s": pytest.approx(2 / 3), "recall": 1 / 5, "mean_length": pytest.approx(13 / 3)
    }  # fmt: skip
    assert tally.counts == {"asked": 3, "failed": 0, "truncated": 1}


def test_silence_divides_by_nothing(annotated, standalone):
    questions = Chair(ids=(3,)).questions(annotated)
    values = chair.score(questions, {"3": Answer("")}, standalone).values()
    assert values == {"chair_i": None, "chair_s": 0.0, "recall": None, "mean_length": 0.0}
    failed = chair.score(questions, {"3": Answer(None)}, standalone)
    assert set(failed.values().values()) == {None} and failed.counts["failed"] == 1


texts = st.lists(st.sampled_from(["dog", "man", "bus", "buses", "hot", "dogs", "a", ",", "toilet", "seat"]), max_size=6)


@given(st.lists(texts, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter_and_nothing_leaves_its_range(captions, rng):
    from training.evaluation.question import Question

    vocabulary = words("coco80")
    questions = [Question(str(i), f"{i}.jpg", "", {"objects": ["dog"]}) for i in range(len(captions))]
    answers = {question.id: Answer(" ".join(caption)) for question, caption in zip(questions, captions, strict=True)}
    values = chair.score(questions, answers, vocabulary).values()
    rng.shuffle(questions)
    assert chair.score(questions, answers, vocabulary).values() == values
    assert all(value is None or 0 <= value <= 1 for name, value in values.items() if name != "mean_length")


def test_an_id_without_an_answer_is_an_error(annotated, standalone):
    questions = Chair(ids=(1, 2)).questions(annotated)
    with pytest.raises(ValueError, match="id '2' is missing from the answers"):
        chair.score(questions, {"1": Answer("")}, standalone)
    with pytest.raises(ValueError, match="id '1' is asked twice"):
        chair.score([questions[0], questions[0]], {"1": Answer("")}, standalone)
