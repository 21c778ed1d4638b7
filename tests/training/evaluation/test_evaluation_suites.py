"""The suites read their benchmark's own files and score answers as the original does."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from training.errors import DataError
from training.evaluation.benchmark_files import digest
from training.evaluation.benchmarks import BENCHMARKS, amber, find, make, pope, shr
from training.evaluation.benchmarks import amber_formula as formulas
from training.evaluation.benchmarks import object_halbench as halbench
from training.evaluation.benchmarks.mmhal import Mmhal, rating
from training.evaluation.benchmarks.pope import Pope
from training.evaluation.benchmarks.shr import Shr
from training.evaluation.question import Answer, Question
from training.evaluation.suite import load
from training.evaluation.tally import Tally
from training.evaluation.words.coco_words import words
from training.evaluation.words.lemmas import EveryWordNouns
from training.evaluation.words.similarity import SIMILARITIES, Exact, Spacy


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# POPE ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pope_files(tmp_path):
    def row(number, image, thing, label):
        return {"question_id": number, "image": image, "text": f"Is there a {thing} in the image?", "label": label}

    for split, absent in {"random": "cup", "popular": "car", "adversarial": "car"}.items():
        rows = [row(1, "a.jpg", "dog", "yes"), row(2, "a.jpg", absent, "no"), row(3, "b.jpg", "cat", "yes")]
        write_lines(tmp_path / f"coco_pope_{split}.json", rows)
    return tmp_path


def test_pope_asks_each_question_once_and_remembers_its_splits(pope_files):
    by_prompt = {question.prompt: question for question in Pope(suffix=" Yes or no?").questions(pope_files)}
    assert len(by_prompt) == 4
    assert by_prompt["Is there a dog in the image? Yes or no?"].truth["splits"] == ["random", "popular", "adversarial"]
    assert by_prompt["Is there a car in the image? Yes or no?"].truth == {
        "answer": "no", "splits": ["popular", "adversarial"]
    }  # fmt: skip
    assert {question.image for question in by_prompt.values()} == {"a.jpg", "b.jpg"}


def test_pope_scores_every_split_and_their_mean(pope_files):
    questions = Pope().questions(pope_files)
    texts = {"dog": "Yes, there is.", "cup": "no", "car": "There is a car", "cat": "No."}
    answers = {question.id: Answer(texts[question.prompt.split()[3]]) for question in questions}
    tally = Pope().score(questions, answers)
    values = tally.values()
    assert values["random_accuracy"] == pytest.approx(2 / 3) and values["popular_accuracy"] == pytest.approx(1 / 3)
    assert values["random_precision"] == 1.0 and values["popular_precision"] == 0.5
    assert values["random_recall"] == values["adversarial_recall"] == 0.5
    assert values["popular_yes_ratio"] == pytest.approx(2 / 3)
    assert values["accuracy"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)
    assert values["f1"] == pytest.approx((2 / 3 + 0.5 + 0.5) / 3)
    assert tally.counts == {"asked": 4, "failed": 0, "truncated": 0}
    assert tally.intervals(20)["f1"] is not None


def test_pope_parsers_disagree_and_say_what_they_could_not_read(pope_files):
    questions = Pope().questions(pope_files)
    answers = {question.id: Answer("Yes, there is.") for question in questions}
    read = {
        parser: Pope(parser).score(questions, answers).values() for parser in ("official", "lmms_eval", "vlmevalkit")
    }
    assert [read[parser]["unparseable_rate"] for parser in read] == [0.0, 1.0, 0.0]
    assert read["lmms_eval"]["accuracy"] == 0.0 and read["official"]["recall"] == read["vlmevalkit"]["recall"] == 1.0
    with pytest.raises(ConfigError, match="option parser: Input should be 'official', 'lmms_eval' or 'vlmevalkit'"):
        make(["pope"], {"pope": {"parser": "x"}})


def test_a_row_that_a_file_holds_twice_counts_twice(pope_files):
    path = pope_files / "coco_pope_random.json"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    questions = Pope().questions(pope_files)
    answers = {question.id: Answer("yes") for question in questions}
    assert Pope().score(questions, answers).values()["random_accuracy"] == 3 / 4


def test_broken_pope_files_are_named_by_line(pope_files):
    path = pope_files / "coco_pope_popular.json"
    path.write_text(path.read_text().replace('"no"', '"maybe"'))
    with pytest.raises(DataError, match=r"coco_pope_popular.json, line 2: label 'maybe'"):
        Pope().questions(pope_files)
    path.write_text('{"image": "a.jpg"}\n')
    with pytest.raises(DataError, match=r"line 1: key 'text' is missing"):
        Pope().questions(pope_files)
    path.write_text("{\n")
    with pytest.raises(DataError, match=r"line 1: not valid JSON"):
        Pope().questions(pope_files)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        Pope().questions(pope_files)


OBJECTS = {f"{i}.jpg": [f"thing{i}", f"thing{i + 1}", "sun", "boat"][: 2 + i % 3] for i in range(12)}


def test_building_draws_from_images_with_three_objects_and_asks_three_and_three():
    questions = pope.about(OBJECTS, images=6, seed=1)
    assert len({question.image for question in questions}) == 6
    assert all(len(OBJECTS[question.image]) >= 3 for question in questions)
    for split in ("random", "popular", "adversarial"):
        per_image = Counter(
            (question.image, question.truth["answer"]) for question in questions if split in question.truth["splits"]
        )
        assert set(per_image.values()) == {3}
    repeated = {**OBJECTS, "r.jpg": ["sun", "sun", "sun"]}
    assert "r.jpg" not in {question.image for question in pope.about(repeated, images=None)}
    with pytest.raises(DataError, match=r"images=9, but only 8 of 12 have at least 3"):
        pope.about(OBJECTS, images=9)


def test_building_does_not_depend_on_the_order_of_the_images():
    backwards = dict(reversed(OBJECTS.items()))
    assert {question.id: question for question in pope.about(backwards, 5)} == {
        question.id: question for question in pope.about(OBJECTS, 5)
    }
    assert {question.image for question in pope.about(OBJECTS, 5, seed=1)} != {
        question.image for question in pope.about(OBJECTS, 5, seed=2)
    }


def test_annotated_images_are_read_in_popes_layout(tmp_path):
    path = tmp_path / "objects.json"
    write_lines(path, [{"image": "a.jpg", "objects": ["dog", "cup"], "image_id": 3}])
    assert pope.read_objects(path) == {"a.jpg": ["dog", "cup"]}
    path.write_text('{"image": "a.jpg", "objects": "dog"}')
    with pytest.raises(DataError, match="line 1: 'objects' is no list"):
        pope.read_objects(path)
    write_lines(path, [{"image": "a.jpg", "objects": ["dog"]}, {"image": "a.jpg", "objects": ["cup"]}])
    with pytest.raises(DataError, match=r"line 2: a.jpg is there twice; give all its objects in one line"):
        pope.read_objects(path)


# AMBER ---------------------------------------------------------------------------------------------------------------

ASSOCIATIONS = {"man": ("person",), "sea": ("water", "lake"), "dog": (), "lake": ("water",), "sun": (), "line": ()}


class Alike:
    """Alike are the pairs that are given, in this order, and every word and itself."""

    version = "test@1"

    def __init__(self, *pairs):
        self.pairs = {frozenset(pair) for pair in pairs}

    def __call__(self, a, b):
        return 0.9 if a == b or frozenset((a, b)) in self.pairs else 0.8  # 0.8 itself is not enough


def described(nouns, truth, made_up=(), similarity=None, safe=()):
    return formulas.description_terms(nouns, truth, made_up, ASSOCIATIONS, safe, similarity or Exact())


@pytest.mark.parametrize(
    ("nouns", "truth", "made_up", "expected"),
    [
        (["man", "dog"], ["man"], [], {"chair": (1, 2), "cover": (1, 1), "hal": (1, 1), "cog": (0, 0)}),
        (["person"], ["man", "sea"], [], {"chair": (0, 1), "cover": (1, 2), "hal": (0, 1), "cog": (0, 0)}),
        (["dog", "dog"], [], ["dog", "sun"], {"chair": (2, 2), "cover": (0, 0), "hal": (1, 1), "cog": (1, 2)}),
        ([], ["man"], ["dog"], {"chair": (0, 0), "cover": (0, 1), "hal": (0, 1), "cog": (0, 1)}),
        # "water" stands for the sea, which comes first; the lake stays unnamed.
        (["water"], ["sea", "lake"], [], {"chair": (0, 1), "cover": (1, 2), "hal": (0, 1), "cog": (0, 0)}),
        # "lake" is a true object, but what is associated is looked through first: it covers the sea.
        (["lake"], ["lake", "sea"], [], {"chair": (0, 1), "cover": (1, 2), "hal": (0, 1), "cog": (0, 0)}),
        # Of two equal true objects only the first can be covered.
        (["man", "man"], ["man", "man"], [], {"chair": (0, 2), "cover": (1, 2), "hal": (0, 1), "cog": (0, 0)}),
    ],
)
def test_amber_counts_a_description(nouns, truth, made_up, expected):
    assert described(nouns, truth, made_up) == expected


def test_ambers_lake_covers_the_sea_that_it_is_associated_with():
    covers_sea = described(["lake", "water"], ["lake", "sea"])
    assert covers_sea["cover"] == (2, 2)  # lake -> sea, water -> lake, each by association


def test_safe_words_are_never_wrong_and_stay_in_the_denominator():
    assert described(["line"], ["man"], ["line"], safe={"line"}) == {
        "chair": (0, 1), "cover": (0, 1), "hal": (0, 1), "cog": (0, 1)
    }  # fmt: skip


def test_likeness_above_the_limit_covers_and_forgives_and_still_marks_what_is_made_up():
    terms = described(["dog"], ["man"], ["dog"], Alike(("dog", "man")))
    assert terms == {"chair": (0, 1), "cover": (1, 1), "hal": (0, 1), "cog": (1, 1)}
    assert described(["dog"], ["man"], [], Alike())["chair"] == (1, 1)  # 0.8 is not above 0.8


def test_a_made_up_noun_marks_its_equal_and_the_first_that_is_like_it():
    terms = described(["dog"], [], ["sun", "dog"], Alike(("dog", "sun")))
    assert terms["cog"] == (2, 2)


def test_no_answer_is_ambers_positive_class():
    no_sayer = [formulas.answer_terms(truth, "no") for truth in ("no", "no", "yes")]
    assert [terms["recall"] for terms in no_sayer] == [(1, 1), (1, 1), (0, 0)]
    assert [terms["precision"] for terms in no_sayer] == [(1, 1), (1, 1), (0, 1)]
    assert formulas.answer_terms("yes", "yes") == {
        "accuracy": (1, 1), "precision": (0, 0), "recall": (0, 0), "f1": (0, 0), "unparseable_rate": (0, 1)
    }  # fmt: skip
    unread = formulas.answer_terms("no", None)
    assert unread["recall"] == (0, 1) and unread["accuracy"] == (0, 1)


def test_ambers_groups():
    assert formulas.groups_of("discriminative-hallucination") == ("existence",)
    assert formulas.groups_of("discriminative-attribute-number") == ("attribute", "number")
    assert formulas.groups_of("discriminative-relation") == formulas.groups_of("relation") == ("relation",)


@pytest.fixture
def amber_files(tmp_path):
    notes = [
        {"id": 1, "type": "generative", "truth": ["man", "sea"], "hallu": ["dog"]},
        {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 3, "type": "discriminative-attribute-state", "truth": "yes"},
        {"id": 4, "type": "relation", "truth": "no"},
    ]
    queries = [{"id": note["id"], "image": "AMBER_1.jpg", "query": f"q{note['id']}"} for note in notes]
    (tmp_path / "query").mkdir()
    (tmp_path / "annotations.json").write_text(json.dumps(notes))
    (tmp_path / "query" / "query_generative.json").write_text(json.dumps(queries[:1]))
    (tmp_path / "query" / "query_discriminative.json").write_text(json.dumps(queries[1:]))
    (tmp_path / "relation.json").write_text(json.dumps({word: list(of) for word, of in ASSOCIATIONS.items()}))
    (tmp_path / "safe_words.txt").write_text("line\nsun")
    return tmp_path


def test_amber_reads_its_files_and_scores_both_parts(amber_files):
    lists = amber.read_lists(amber_files)
    assert lists.safe == {"line", "sun"} and lists.associations == ASSOCIATIONS
    asked = amber.describe(amber_files)
    answers = {"1": Answer("A man at the sea. Dogs and suns, and a tree.")}
    tally = amber.score_descriptions(asked, answers, lists, EveryWordNouns(), Exact())
    # man, sea, dog and sun are of its vocabulary; the sun is safe.
    assert tally.values() == {"chair": 1 / 4, "cover": 1.0, "hal": 1.0, "cog": 1.0}

    questions = amber.AmberDiscriminative(suffix="?").questions(amber_files)
    assert [question.prompt for question in questions] == ["q2?", "q3?", "q4?"]
    said = amber.AmberDiscriminative().score(questions, {"2": Answer("No"), "3": Answer("No"), "4": Answer("no")})
    values = said.values()
    assert values["accuracy"] == pytest.approx(1 / 3) and values["precision"] == 0.5 and values["recall"] == 0.5
    assert values["f1"] == 0.5 and values["unparseable_rate"] == pytest.approx(1 / 3)
    assert values["existence_f1"] == 1.0 and values["state_accuracy"] == values["attribute_accuracy"] == 0.0
    assert values["relation_recall"] == 0.0 and values["number_accuracy"] is None
    both = amber.together(tally, said)
    assert both.values()["amber_score"] == pytest.approx((1 - 0.25 + 0.5) / 2)
    assert both.counts["questions_asked"] == 3 and both.counts["descriptions_asked"] == 1


def test_another_parser_reads_more_of_ambers_answers(amber_files):
    questions = amber.AmberDiscriminative().questions(amber_files)
    answers = {question.id: Answer("No, there is not.") for question in questions}
    assert amber.AmberDiscriminative().score(questions, answers).values()["unparseable_rate"] == 1.0
    assert amber.AmberDiscriminative("vlmevalkit").score(questions, answers).values()["recall"] == 1.0


def test_ambers_printed_numbers_have_its_constants(amber_files):
    questions = amber.AmberDiscriminative().questions(amber_files)
    shown = formulas.printout(
        amber.AmberDiscriminative().score(questions, {"2": Answer("No"), "3": Answer("Yes"), "4": Answer("Yes")})
    )
    # 2 / 3.001 and 1 / 1.001, 1 / 2.001; F1 of 0.999 and 0.5 with 0.0001 more below.
    assert (shown["accuracy"], shown["precision"], shown["recall"]) == (66.6, 99.9, 50.0)
    assert shown["f1"] == round(2 * 0.999 * 0.5 / (0.999 + 0.5 + 0.0001) * 100, 1)
    assert shown["existence_f1"] == round(2 * 0.999 * 0.999 / (1.998 + 0.001) * 100, 1) == 99.9
    assert shown["attribute_accuracy"] == round(100 / 1.003, 1) == 99.7
    assert shown["state_accuracy"] == 99.9 and shown["number_accuracy"] == 0.0
    asked = amber.describe(amber_files)
    lists = amber.read_lists(amber_files)
    clean = amber.score_descriptions(asked, {"1": Answer("A man.")}, lists, EveryWordNouns(), Exact())
    assert formulas.printout(clean) == {"chair": 0.0, "cover": 50.0, "hal": 0.1, "cog": 0.0}


def test_existence_has_a_constant_of_its_own_in_f1():
    shares = {"accuracy": (1, 1), "precision": (50, 100), "recall": (20, 100)}
    tally = Tally.of([("a", {group + name: term for group in ("", "existence_") for name, term in shares.items()})])
    shown = formulas.printout(tally)
    assert shown["precision"] == shown["existence_precision"] == 50.0
    assert (shown["f1"], shown["existence_f1"]) == (28.6, 28.5)


def test_broken_amber_files_are_named(amber_files):
    (amber_files / "relation.json").write_text('{"man": [], "sea": []}')
    with pytest.raises(DataError, match=r"id 1: 'dog' is not in relation.json"):
        amber.describe(amber_files)
    (amber_files / "annotations.json").write_text("[]")
    with pytest.raises(DataError, match="id 2 is not in"):
        amber.AmberDiscriminative().questions(amber_files)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("annotations.json", {"id": 1}, "annotations.json is no list; give the official file"),
        ("annotations.json", 3, "annotations.json is no list"),
        ("annotations.json", [3], "annotations.json: not a JSON object"),
        (
            "annotations.json",
            [{"id": 1, "type": None, "truth": []}],
            "annotations.json, id 1: type is None, which is no text",
        ),
        (
            "annotations.json",
            [{"id": 1, "type": "generative", "truth": None, "hallu": []}],
            "annotations.json, id 1: truth is None, which is no list of texts",
        ),
        (
            "annotations.json",
            [{"id": 1, "type": "generative", "truth": [], "hallu": "dog"}],
            "annotations.json, id 1: hallu is 'dog', which is no list of texts",
        ),
        ("query/query_generative.json", {"id": 1}, "query_generative.json is no list"),
        ("query/query_generative.json", [{"id": [1], "image": "a", "query": "?"}], r"item 1: id \[1\] is not in"),
    ],
)
def test_what_is_wrong_with_an_amber_file_is_said(amber_files, file, content, message):
    (amber_files / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        amber.describe(amber_files)


def test_spacy_fails_rather_than_falls_back(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(DataError, match=r"similarity model en_core_web_lg is missing.*choose --similarity exact"):
        SIMILARITIES["spacy"]()
    with pytest.raises(DataError, match="tagger en_core_web_trf is missing"):
        halbench.PHRASES["spacy"]()
    assert Exact().version == "exact@1" and (Exact()("a", "a"), Exact()("a", "b")) == (1.0, 0.0)


def fake_spacy(monkeypatch, vectors):
    class Doc(str):
        def similarity(self, other):
            return 0.9 if self[0] == other[0] else 0.1

    def load(model):
        nlp = type("Nlp", (), {"__call__": lambda self, text: Doc(text)})()
        nlp.vocab, nlp.meta = type("Vocab", (), {"vectors_length": vectors})(), {"version": "3.8.0"}
        return nlp

    module = type(sys)("spacy")
    module.load = load
    monkeypatch.setitem(sys.modules, "spacy", module)


def test_spacys_model_and_version_are_recorded_and_one_without_vectors_is_refused(monkeypatch):
    fake_spacy(monkeypatch, 300)
    similarity = Spacy()
    assert similarity.version == "spacy:en_core_web_lg@3.8.0"
    assert (similarity("dog", "dachshund"), similarity("dog", "cat")) == (0.9, 0.1)
    fake_spacy(monkeypatch, 0)
    with pytest.raises(DataError, match="has no word vectors"):
        Spacy("en_core_web_sm")


nouns = st.lists(st.sampled_from(["man", "person", "sea", "water", "dog", "sun", "line"]), max_size=6)


@given(nouns, st.lists(st.sampled_from(["man", "sea", "lake"]), max_size=4), st.lists(st.sampled_from(["dog", "sun"])))
def test_amber_never_counts_more_than_there_is(mentioned, truth, made_up):
    terms = described(mentioned, truth, made_up)
    assert all(0 <= above <= below for above, below in terms.values())
    assert described(list(reversed(mentioned)), truth, made_up) == terms  # with exact matches, order is nothing
    assert described([*mentioned, *mentioned], truth, made_up)["cover"] == terms["cover"]


# SHR -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog. A cat.", ["A dog", "A cat"]),
        ("A dog runs. A dog. A dog runs.", ["A dog runs"]),
        ("A dog. A dog runs.", ["A dog", "A dog runs"]),  # only what comes later can be a repetition
        ("Is it? It is!", ["Is it? It is!"]),
        ("...", []),
        ("A 3.5 m tree", ["A 3", "5 m tree"]),
        ("A\nB. C", ["A\nB", "C"]),
    ],
)
def test_sentences_end_at_full_stops_and_repetitions_are_left_out(text, expected):
    assert shr.sentences(text) == expected


def test_cannot_judge_stays_in_the_denominator_and_other_words_do_not():
    judgement = "Judgement:\n1. hallucination: no.\n2. Correct: yes.\n\n3. cannot judge: mood.\n4. unsure: x."
    text = "A b c. D e. F. G."
    verdicts = shr.read(judgement, text)
    assert verdicts == ["hallucination", "correct", "cannot judge", None]
    assert shr.terms(verdicts, text) == {
        "shr": (1, 3), "shr_words": (3, 6), "sentences": (4, 1), "words": (7, 1)
    }  # fmt: skip


@pytest.mark.parametrize(
    "judgement",
    [
        "1. correct: no head",
        "Judgement:\n1. correct: one line, two sentences",
        "Judgement:\n" + "1. correct: x\n" * 3,
        "",
    ],
)
def test_a_judgement_that_does_not_match_gives_no_verdict(judgement):
    assert shr.read(judgement, "A b. C d.") is None


def test_text_before_the_head_is_ignored_and_a_verdict_needs_its_number():
    assert shr.read("I think so.\nJudgement:\n1. correct: x\n2. hallucination: y", "A. B.") == [
        "correct",
        "hallucination",
    ]
    assert shr.read("Judgement:\nhallucination: x", "A.") == [None]  # the first word is taken for the number


def test_n_grams_are_of_words_without_signs():
    assert shr.distinct("A dog, a dog. A dog", 1) == 3 / 6
    assert shr.distinct("one\ntwo two", 1) == 1.0  # "onetwo", "two"
    assert shr.distinct("a b c", 4) is None
    assert shr.variety("a a")["distinct_2"] == (1.0, 1.0) and shr.variety("a a")["distinct_3"] == (0.0, 0.0)


def describe(*images, objects=()):
    return [Question(str(i), image, "", {"objects": list(objects)}) for i, image in enumerate(images)]


def test_shr_is_pooled_and_a_repeated_image_counts_once_but_its_n_grams_twice():
    questions = describe("a", "b", "a")
    answers = {
        "0": Answer("X x.", "Judgement:\n1. hallucination: no"),
        "1": Answer("A b. C d.", "Judgement:\n1. correct: y\n2. hallucination: n"),
        "2": Answer("A b c d.", "Judgement:\n1. correct: y"),
    }
    tally = shr.score(questions, answers)
    values = tally.values()
    assert values["shr"] == pytest.approx(1 / 3)  # answer 0 gave way to answer 2
    assert values["sentences"] == 1.5 and values["distinct_1"] == 1.0
    assert tally.sums["distinct_1"].tolist() == [[2, 2], [1, 1]]
    assert tally.sums["distinct_2"][0].tolist() == [2, 2]


def test_descriptions_without_a_usable_judgement_are_counted():
    questions = describe("a", "b", "c")
    answers = {
        "0": Answer("A.", None),
        "1": Answer("A. B.", "Judgement:\n1. correct: y"),
        "2": Answer("A.", "Judgement:\n1. correct: y"),
    }
    tally = shr.score(questions, answers)
    assert tally.values()["shr"] == 0.0
    assert (tally.counts["unjudged"], tally.counts["mismatched"]) == (1, 1)
    assert tally.values()["sentences"] == 1.5  # of those that were judged, matched or not


@pytest.mark.parametrize(
    ("line", "unread"),
    [
        ("hallucination: no dog", 0),
        ("Hallucination : no dog", 1),  # the original takes no blank before the colon
        ("**hallucination**: no dog", 1),
        ("Hallucination - no dog", 1),
        ("wrong: no dog", 1),
        ("cannot judge: a mood", 0),
    ],
)
def test_a_verdict_that_cannot_be_read_is_in_no_sum_and_counted(line, unread):
    questions = describe("a", "b")
    answers = {
        "0": Answer("A dog. A cat.", f"Judgement:\n1. {line}\n2. correct: seen"),
        "1": Answer("A. B.", "Judgement:\n1. correct: y"),  # mismatched: not a sentence of it was read
    }
    tally = shr.score(questions, answers)
    assert (tally.counts["mismatched"], tally.counts["unread"]) == (1, unread)
    assert tally.sums["shr"][:, 1].tolist() == [2 - unread, 0]


def test_facts_can_be_the_judge():
    from reward.text.object_vocabulary import Vocabulary

    vocabulary = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat"})
    answers = {"0": Answer("A sun. A boat. How calm.")}
    assert shr.score(describe("a", objects=["sun"]), answers, vocabulary).values()["shr"] == pytest.approx(1 / 3)


@given(st.lists(st.sampled_from(["A dog", "a", "cat runs", "", "dog"]), max_size=6))
def test_a_judge_that_answers_every_sentence_is_understood(parts):
    text = ". ".join(parts)
    lines = [f"{number}. correct: seen" for number in range(1, len(shr.sentences(text)) + 1)]
    assert shr.read("\n".join(["Judgement:", *lines]), text) == ["correct"] * len(lines)


def test_shr_reads_visual_genome_and_asks_a_judge(tmp_path):
    (tmp_path / "val_images_final.json").write_text('[{"image_id": 7}]')
    (tmp_path / "image_data.json").write_text(
        '[{"image_id": 7, "width": 100, "height": 50, "url": "https://x/y/VG_100K/7.jpg"}, {"image_id": 8}]'
    )
    region = {"image_id": 7, "x": 10, "y": 5, "width": 40, "height": 20, "phrase": "a {red} dog"}
    (tmp_path / "region_descriptions.json").write_text(
        json.dumps([{"id": 7, "regions": [region, {**region, "phrase": ""}]}, {"id": 8, "regions": []}])
    )
    (tmp_path / "shr_factual_part1.jsonl").write_text('{"7": ["It rains."]}\n')
    (only,) = Shr().questions(tmp_path)
    assert (only.id, only.image) == ("7", "VG_100K/7.jpg")
    assert only.truth == {"regions": [[[0.1, 0.1, 0.5, 0.5], "a {red} dog"]], "facts": ["It rains."]}
    asking = Shr().judge_prompt(only, "A dog {facts}. A cat <image>.")
    assert "[0.10, 0.10, 0.50, 0.50]: a {red} dog" in asking and "It rains." in asking
    assert "1. A dog {facts}\n2. A cat < image>" in asking
    (tmp_path / "shr_factual_part1.jsonl").write_text('{"8": ["It snows."]}\n')
    (only,) = Shr().questions(tmp_path)
    assert only.truth["facts"] == []  # of some images the original's files have none
    assert Shr().judge_prompt(only, "word " * 4000) is None
    (tmp_path / "val_images_final.json").write_text('[{"image_id": 9}]')
    with pytest.raises(DataError, match="image 9 of"):
        Shr().questions(tmp_path)
    (tmp_path / "shr_factual_part1.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no shr_factual_part\*.jsonl; put HA-DPO's there"):
        Shr().questions(tmp_path)


# Object HalBench and MMHal-Bench -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judgement", "expected"),
    [
        ('```json\n["dog"]\n```', ["dog"]),
        ("```json\n[]\n```", []),
        ('The objects are:\n["dog", "red cup"]', ["dog", "red cup"]),
        ('```json\nnot json\n```\n["dog"]', ["dog"]),
        ("[]", []),
        ("dog, cup", None),
        ('["dog"] as I said', None),
        ('```json\n{"objects": ["dog"]}\n```', None),
        ('[\n "dog",\n "cat"\n]', ["dog", "cat"]),
        ('Here it is:\n```\n[\n "dog",\n "cat"\n]\n```\nThat is all.', ["dog", "cat"]),
        ('Here it is:\n[\n "dog"\n]\nThat is all.', None),
        ('```\n[\n "dog"\n]\n```\nDone.', ["dog"]),
        ("['dog', \"cat's toy\", 'cat\\'s bowl',]", ["dog", "cat's toy", "cat's bowl"]),
        ('["cat"] or ["dog"]', None),  # it can be read in two ways
        ('["dog", 2]', None),
        ('["dog", null]', None),
        ("[" * 100_000, None),
    ],
)
def test_the_judges_list_is_found(judgement, expected):
    assert halbench.objects_in(judgement) == expected


def halbench_score(*answers, phrases=None, truth=("dog",)):
    questions = [Question(str(i), f"{i}.jpg", "", {"objects": list(truth)}) for i in range(len(answers))]
    given_answers = {question.id: answer for question, answer in zip(questions, answers, strict=True)}
    return halbench.score(questions, given_answers, words("coco80"), phrases)


def test_object_halbench_by_hand():
    tally = halbench_score(
        Answer("A dog and a cup and a cup.", '["a dog", "cup", "cup", "coffee table"]'),
        Answer("The sky is very blue.", "[]"),  # names nothing: not in the denominator of responses
        Answer("A red cup here", '["teddy bear", "cup"]'),
        Answer("Yes, a cat", None),  # too short to be judged
        phrases=halbench.EveryWordPhrases(),
    )
    assert tally.values() == {
        "response": 2 / 2,
        "mention": 3 / 4,  # dog, cup (once); teddy bear, cup
        "chair_s": 2 / 4,
        "recall": 1 / 4,
        "mean_length": pytest.approx((8 + 5 + 4 + 3) / 4),
    }


def test_object_halbench_without_a_judge_counts_repeats():
    values = halbench_score(Answer("A dog and a cup and a cup.")).values()
    assert values["mention"] == pytest.approx(2 / 3)


def test_object_halbench_takes_an_answer_without_the_word_in_front_of_it():
    """As the original does before anything else: for the judge, for the length, and for what is too short."""
    short, long = "Assistant: one two three", "Assistant: A dog and a red cup."
    question = Question("0", "0.jpg", "", {"objects": ["dog"]})
    assert halbench.ObjectHalbench().judge_prompt(question, short) is None
    asking = halbench.ObjectHalbench().judge_prompt(question, long)
    assert "> A dog and a red cup." in asking and "Assistant" not in asking
    values = halbench_score(Answer(short), phrases=halbench.EveryWordPhrases()).values()
    assert values["mean_length"] == 3 and values["response"] is None
    assert halbench_score(Answer(long, '["dog"]'), phrases=halbench.EveryWordPhrases()).values()["mean_length"] == 6


def test_object_halbench_says_what_it_could_not_use():
    tally = halbench_score(Answer("A dog is here.", "no list"), phrases=halbench.EveryWordPhrases())
    assert tally.counts["unparseable"] == 1 and tally.values()["response"] is None
    with pytest.raises(ValueError, match="id '0' has no judgement"):
        halbench_score(Answer("A dog is here."), phrases=halbench.EveryWordPhrases())


def test_a_seat_beside_a_toilet_is_no_chair(tmp_path):
    (tmp_path / "synonyms.txt").write_text("chair, seat\ntoilet\ndog\n")
    vocabulary = words("standalone", tmp_path / "synonyms.txt")

    def named(*objects):
        return [
            mention.name
            for mention in halbench.judge(objects, frozenset(), vocabulary, halbench.EveryWordPhrases()).mentions
        ]

    assert named("toilet", "a seat", "chair") == ["toilet", "chair"]
    assert named("a seat", "dog") == ["chair", "dog"]


def test_runs_of_nouns_are_one_word_for_the_original(monkeypatch):
    class Token:
        def __init__(self, text):
            self.lemma_, self.tag_ = text, "NN" if text not in ("a", "wooden") else "DT"

    nlp = type("Nlp", (), {"__call__": lambda self, text: [Token(word) for word in text.split()]})()
    nlp.meta = {"version": "1"}
    module = type(sys)("spacy")
    module.load = lambda model: nlp
    monkeypatch.setitem(sys.modules, "spacy", module)
    phrases = halbench.SpacyPhrases()
    vocabulary = words("coco80")
    assert phrases("wooden coffee table", vocabulary) == ["coffee table"]
    assert phrases("blue teddy bear", vocabulary) == ["teddy bear"]
    assert halbench.judge(["dining table", "cup"], frozenset(), vocabulary, phrases).repeated == 0


def test_object_halbench_reads_its_questions(tmp_path):
    write_lines(tmp_path / "questions.jsonl", [{"image_id": 5, "question": "What is there?"}])
    (tmp_path / "instances_val2014.json").write_text(
        '{"images": [{"id": 5, "file_name": "5.jpg"}], "categories": [{"id": 1, "name": "dog"}],'
        ' "annotations": [{"image_id": 5, "category_id": 1}]}'
    )
    (tmp_path / "captions_val2014.json").write_text('{"annotations": [{"image_id": 5, "caption": "Cups."}]}')
    (only,) = halbench.questions(tmp_path, words("coco80"))
    assert only == Question("1", "5.jpg", "What is there?", {"objects": ["cup", "dog"]})
    write_lines(tmp_path / "questions.jsonl", [{"image_id": 6, "question": "?"}])
    with pytest.raises(DataError, match="line 1: image 6 is not in"):
        halbench.questions(tmp_path, words("coco80"))
    write_lines(tmp_path / "questions.jsonl", [{"image_id": 5, "question": "?"}])
    (tmp_path / "captions_val2014.json").write_text('{"annotations": [{"image_id": 6, "caption": "Cups."}]}')
    with pytest.raises(DataError, match=r"image 5 has no caption in captions_\*.json"):
        halbench.questions(tmp_path, words("coco80"))


@pytest.mark.parametrize("id", ["COCO_val2014_000000000001.jpg", None, 1.5, True, [5], ""])
def test_an_image_of_object_halbench_is_a_number(tmp_path, id):
    write_lines(tmp_path / "questions.jsonl", [{"image_id": id, "question": "?"}])
    with pytest.raises(
        DataError, match=r"questions.jsonl, line 1: image_id is .*, which is no id; give the benchmark's"
    ):
        halbench.questions(tmp_path, words("coco80"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("val_images_final.json", {"image_id": 7}, "val_images_final.json is no list"),
        ("val_images_final.json", None, "val_images_final.json is no list"),
        ("val_images_final.json", [{"image_id": "a"}], "val_images_final.json: image_id is 'a', which is no id"),
        ("image_data.json", [{"image_id": "a"}], r"image_data.json, item 1: image_id is 'a', which is no id"),
        ("image_data.json", [{"image_id": 7, "width": 0, "height": 5, "url": "a/7.jpg"}], "image 7: is 0 x 5 pixels"),
        (
            "image_data.json",
            [{"image_id": 7, "width": "5", "height": 5, "url": "a/7.jpg"}],
            "width is '5', which is no num",
        ),
        ("region_descriptions.json", [{"regions": {"image_id": 7}}], "descriptions.json, item 1: regions is no list"),
        ("region_descriptions.json", [{"regions": ["a"]}], "descriptions.json, item 1: not a JSON object"),
        (
            "region_descriptions.json",
            [{"regions": [{"image_id": 7, "x": None, "y": 0, "width": 1, "height": 1, "phrase": "a dog"}]}],
            "Visual Genome, image 7: x is None, which is no number",
        ),
        ("shr_factual_part1.jsonl", {"1.jpg": []}, r"part1.jsonl, line 1: image is '1.jpg', which is no id"),
        ("shr_factual_part1.jsonl", {"7": None}, r"part1.jsonl, line 1: 7 is None, which is no list of texts"),
        ("shr_factual_part1.jsonl", {"7": "It rains."}, r"part1.jsonl, line 1: 7 is 'It rains.', which is no list of"),
        ("shr_factual_part1.jsonl", {"7": [3]}, r"part1.jsonl, line 1: 7 is \[3\], which is no list of texts"),
    ],
)
def test_broken_files_of_shr_are_named(tmp_path, file, content, message):
    files = {
        "val_images_final.json": [{"image_id": 7}],
        "image_data.json": [{"image_id": 7, "width": 100, "height": 50, "url": "https://x/VG_100K/7.jpg"}],
        "region_descriptions.json": [
            {"regions": [{"image_id": 7, "x": 10, "y": 5, "width": 4, "height": 2, "phrase": "a dog"}]}
        ],
        "shr_factual_part1.jsonl": {"7": ["It rains."]},
    }
    for name, whole in files.items():
        (tmp_path / name).write_text(json.dumps(whole))
    assert len(Shr().questions(tmp_path)) == 1
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Shr().questions(tmp_path)


@pytest.mark.parametrize("content", [None, "a dog", [1]])
def test_what_is_in_an_image_of_mmhal_is_a_list_of_texts(tmp_path, content):
    row = {"image_src": "a.png", "question": "?", "image_content": content, "gt_answer": "A dog."}
    (tmp_path / "response_template.json").write_text(json.dumps([row]))
    with pytest.raises(
        DataError, match=r"response_template.json, item 1: image_content is .*, which is no list of texts"
    ):
        Mmhal().questions(tmp_path)


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("suite", ["chair", "mme"])
def test_a_limit_is_at_least_one_image(suite, limit, tmp_path):
    with pytest.raises(ConfigError, match=rf"{suite}.limit is {limit}; give 1 or more images, or null for all"):
        make([suite], {suite: {"limit": limit}})
    with pytest.raises(ConfigError, match=rf"limit is {limit}; give 1 or more images"):
        load(["pope"], tmp_path, limit=limit)


def test_mmhal_ratings_are_read_as_the_original_reads_them():
    read = rating
    assert [read(f"... Rating: {score}, because") for score in range(7)] == list(range(7))
    assert read("RATING: 5") == 5
    assert read("rating: 2 ... rating: 2") == 2
    assert read("Rating: 2 or Rating: 3") is None and read("Rating 3") is None and read("rating:3") is None


def test_mmhal_by_hand():
    questions = [Question(str(i), f"{i}.jpg", "", {"place": i}) for i in range(9)]
    judgements = ["Rating: 6", "Rating: 3", "Rating: 2", "nothing", *["Rating: 4"] * 5]
    values = Mmhal().score(questions, {str(i): Answer("an answer", text) for i, text in enumerate(judgements)}).values()
    assert values["score"] == pytest.approx((6 + 3 + 2 + 0 + 20) / 9)
    assert values["hallucination_rate"] == pytest.approx(2 / 9)
    assert values["informativeness"] == pytest.approx((3 + 0 + 2 + 0 + 5) / 27)
    assert values["score_attribute"] == 5.0 and values["score_counting"] == 0.0  # places 0 and 8; place 3
    assert values["unparseable_rate"] == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match="id '0' has no judgement"):
        Mmhal().score(questions[:1], {"0": Answer("x")})


def test_mmhal_reads_its_template(tmp_path):
    row = {"image_src": "https://a/b/c_o.jpg", "question": "How many?", "image_content": ["Cat"], "gt_answer": "Two."}
    (tmp_path / "response_template.json").write_text(json.dumps([row]))
    (only,) = Mmhal().questions(tmp_path)
    assert (only.image, only.prompt, only.truth["place"]) == ("c_o.jpg", "How many?", 0)


# All of them ---------------------------------------------------------------------------------------------------------


def test_the_registry_says_which_suites_need_a_judge():
    assert {name for name in BENCHMARKS if find(name).judged} == {"shr", "object_halbench", "mmhal", "mmvet"}
    assert all(find(name).version for name in BENCHMARKS)


def test_a_digest_follows_content_and_names(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    before = digest([tmp_path / "a", tmp_path / "b"])
    assert before == digest([tmp_path / "b", tmp_path / "a"]) and before != digest([tmp_path / "a"])
    (tmp_path / "b").write_text("3")
    assert digest([tmp_path / "a", tmp_path / "b"]) != before
    with pytest.raises(DataError, match="cannot be read"):
        digest([tmp_path / "none"])


def test_evaluation_loads_nothing_heavy():
    folder = Path(__file__).parents[3] / "training" / "evaluation"
    modules = [
        ".".join(path.relative_to(folder.parents[1]).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(folder.rglob("*.py"))
        if "probing" not in path.parts  # runs models
    ]
    heavy = ("torch", "ray", "vllm", "transformers", "datasets", "spacy", "nltk", "matplotlib")
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
