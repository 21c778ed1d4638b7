"""How often a score prefers what is really better: counting, truth, reading, and the control."""

import json
from dataclasses import replace

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import image
from typer.testing import CliRunner

from reward.agreement.agreement_table import lines, markdown, records
from reward.agreement.image_control import SWAPPED, rescore, swap_images
from reward.agreement.marked_pairs import marked
from reward.agreement.read_prompts import read
from reward.agreement.statistics import agreement, outcome
from reward.agreement.truth import Preference, Prompt, known_attributes, preferences, wrong_details
from reward.text.object_vocabulary import Vocabulary

WORDS = Vocabulary("demo", "1", {"sun": "sun", "suns": "sun", "boat": "boat", "boats": "boat", "cup": "cup"})
FACTS = {
    "objects": [
        {"name": "sun", "count": 1, "attributes": ["red"]},
        {"name": "boat", "count": 2, "attributes": ["blue"]},
    ],
    "question_type": None,
    "answer": None,
}
COLOURS = frozenset({"red", "blue"})
OUTCOMES = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 4)), min_size=1, max_size=40)


def prompt(*texts, facts=FACTS, scores=None, **options):
    return Prompt("p", (), (("user", "Describe."),), texts, scores or {}, facts, **options)


# ---------------------------------------------------------------------------------------------------------- statistics


@given(OUTCOMES)
def test_swapping_the_labels_turns_an_accuracy_into_its_complement(made):
    values, prompts = zip(*made, strict=True)
    result = agreement(values, prompts, samples=100)
    other = agreement([1 - value for value in values], prompts, samples=100)
    assert other.accuracy == pytest.approx(1 - result.accuracy) and other.ties == result.ties
    assert (other.low, other.high) == pytest.approx((1 - result.high, 1 - result.low), abs=1e-9)


@given(OUTCOMES)
def test_the_interval_is_within_bounds_and_the_order_of_pairs_means_nothing(made):
    result = agreement(*zip(*made, strict=True), samples=100)
    assert 0 <= result.low <= result.high <= 1
    again = agreement(*zip(*sorted(made), strict=True), samples=100)
    assert (result.accuracy, result.low, result.high) == pytest.approx((again.accuracy, again.low, again.high))


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_an_outcome_and_its_reverse_add_up_to_one(a, b):
    assert outcome(a, b) + outcome(b, a) == 1


def test_ties_count_a_half_and_are_reported():
    result = agreement([1.0, 0.5, 0.5, 0.0], [0, 1, 2, 3])
    assert (result.accuracy, result.ties, result.pairs, result.prompts) == (0.5, 0.5, 4, 4)
    assert agreement([], []) is None


def test_prompts_are_resampled_not_pairs():
    """A hundred pairs of two prompts are not a hundred observations."""
    few = agreement([1.0] * 50 + [0.0] * 50, [0] * 50 + [1] * 50)
    many = agreement([1.0] * 50 + [0.0] * 50, list(range(100)))
    assert few.high - few.low == 1 and many.high - many.low < 0.25


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    import numpy as np

    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        rates = generator.beta(6, 3, 60)  # of 60 prompts with 5 pairs each; 2/3 on average
        values = [float(generator.random() < rate) for rate in rates for _ in range(5)]
        result = agreement(values, [i for i in range(60) for _ in range(5)], samples=200)
        inside += result.low <= 2 / 3 <= result.high
    assert 0.88 <= inside / 200 <= 0.99


# --------------------------------------------------------------------------------------------------------------- truth


@pytest.mark.parametrize(
    ("better", "worse", "kind"),
    [
        ("A red sun.", "A red sun and a cup.", "object"),
        ("A red sun.", "A red sun, two blue boats and a cup.", "object"),  # one made up weighs more than one missing
        ("A red sun and two blue boats.", "A red sun.", "missing"),
        ("A red sun and two blue boats.", "A blue sun and two blue boats.", "attribute"),
        ("A red sun and two blue boats.", "A red sun and three blue boats.", "count"),
        ("A red sun and two blue boats.", "Red suns: two. Two blue boats.", None),
    ],
)
def test_facts_decide_and_say_what_kind_of_error_it_is(better, worse, kind):
    wanted = [] if kind is None else [Preference(0, 1, kind)]
    assert preferences(prompt(better, worse), WORDS, COLOURS) == wanted
    assert preferences(prompt(worse, better), WORDS, COLOURS) == [
        Preference(1, 0, preference.kind) for preference in wanted
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A red boat.", (0, 0)),
        ("A blue boat.", (0, 0)),
        ("Two boats.", (0, 0)),
        ("A green boat.", (1, 1)),  # of the green ones there is none, and of all there are two
        ("Three boats.", (0, 1)),
        ("Two red boats.", (0, 0)),  # of boats there are two; that only one is red is not read
    ],
)
def test_of_several_entries_of_one_name_each_is_there(text, wrong):
    """As annotations of instances have them, and in any case."""
    boats = [{"name": "boat", "count": 1, "attributes": [colour]} for colour in ("Red", "blue")]
    attributes = known_attributes([prompt("a", facts={"objects": [*boats, {"name": "sun", "attributes": ["green"]}]})])
    for objects in (boats, boats[::-1]):
        assert wrong_details(text, {"objects": objects}, WORDS, attributes) == wrong


def test_without_a_vocabulary_the_stored_counts_decide():
    scores = {"objects.hallucinated": (0.0, 1.0, 0.0), "objects.covered": (1.0, 2.0, 2.0)}
    ordered = preferences(prompt("a", "b", "c", scores=scores), None, COLOURS)
    assert ordered == [Preference(0, 1, "object"), Preference(2, 0, "missing"), Preference(2, 1, "object")]
    asked_nothing = {**scores, "correctness": (None, None, None)}
    assert preferences(prompt("a", "b", "c", scores=asked_nothing), None, COLOURS) == ordered
    assert preferences(prompt("a", "b"), None, COLOURS) == []


def test_of_a_question_the_right_answer_is_better_and_the_kind_is_its_own():
    question = {**FACTS, "question_type": "relation", "answer": "yes"}
    scores = {"correctness": (1.0, 0.0, None)}
    ordered = preferences(prompt("Yes", "No", "hm", facts=question, scores=scores), WORDS, COLOURS)
    assert ordered == [Preference(0, 1, "relation")]


def test_attributes_are_those_of_all_facts():
    assert known_attributes([prompt("a"), prompt("b", facts=None)]) == COLOURS


@given(st.lists(st.sampled_from(["A red sun.", "A cup.", "Two blue boats.", "A blue sun and a boat."]), max_size=5))
def test_no_text_is_better_than_itself_and_better_is_never_both_ways(texts):
    ordered = preferences(prompt(*texts), WORDS, COLOURS)
    assert all(texts[pair.better] != texts[pair.worse] for pair in ordered)
    assert len({frozenset((pair.better, pair.worse)) for pair in ordered}) == len(ordered)


# --------------------------------------------------------------------------------------------------------------- table


def scored(values, label="label", **more):
    return [
        Prompt(str(i), (image(1, 1, seed=i),), (("user", "q"),), ("good", "bad"), {"s": pair, **more}, label=label)
        for i, pair in enumerate(values)
    ]


def test_a_line_has_accuracy_ties_and_the_control():
    prompts = scored([(2.0, 1.0), (1.0, 1.0), (None, 1.0)])
    prompts[0].scores["s" + SWAPPED] = (0.0, 1.0)
    (line,) = lines(prompts, [preferences(each, None, COLOURS) for each in prompts])
    assert (line.score, line.kind, line.own.pairs, line.own.accuracy, line.own.ties) == ("s", "all", 2, 0.75, 0.5)
    assert line.swapped.accuracy == 0.0
    assert "| s | higher | all | 2 | 0.750 (" in markdown([line]) and "higher is better" in markdown([line])
    assert json.loads(json.dumps(records([line])))[0]["swapped"]["pairs"] == 1


def test_less_is_better_for_counts_of_errors_and_facts_do_not_judge_themselves():
    errors = {"objects.hallucinated": (0.0, 2.0), "facts.wrong": (0.0, 1.0)}
    prompts = scored([(1.0, 1.0)], **errors, **{"objects.mentions": (1.0, 2.0), "facts.unclear": (0.0, 1.0)})
    accuracies = {line.score: line.own.accuracy for line in lines(prompts, [[Preference(0, 1, "object")]])}
    assert accuracies == {"s": 0.5, "objects.hallucinated": 1.0, "facts.wrong": 1.0}
    unlabelled = [Prompt("p", None, (), ("a", "b"), prompts[0].scores)]
    assert {line.score for line in lines(unlabelled, [[Preference(0, 1, "object")]])} == {"s"}


def test_kinds_have_lines_of_their_own():
    prompts = scored([(1.0, 0.0), (0.0, 1.0)])
    accuracies = {
        line.kind: line.own.accuracy for line in lines(prompts, [[Preference(0, 1, "a")], [Preference(0, 1, "b")]])
    }
    assert accuracies == {"all": 0.5, "a": 1.0, "b": 0.0}


# ------------------------------------------------------------------------------------------------------------- control


class Looks:
    """Scores a text by whether the image is the one with its number in it."""

    name, version = "looks", "1"

    def score(self, rows):
        seen = [image(1, 1, seed=i) for i in range(6)]
        return {
            "looks": [
                [float(candidate["text"] == str(seen.index(row["images"][0]))) for candidate in row["candidates"]]
                for row in rows
            ]
        }


@given(st.integers(0, 50))
def test_every_prompt_is_shown_the_image_of_another(seed):
    prompts = scored([(1.0, 0.0)] * 6)
    shown = swap_images(prompts, seed)
    assert len(shown) == 6 and shown == swap_images(prompts, seed)
    originals = {prompt.images for prompt in prompts}
    assert all(a.images != b.images and b.images in originals for a, b in zip(prompts, shown, strict=True))


def test_prompts_without_an_image_to_swap_with_are_left_out():
    single = scored([(1.0, 0.0)])
    assert swap_images(single) == swap_images([Prompt("a", None, (), (), {}), Prompt("b", (), (), (), {})]) == []


def test_a_scorer_that_looks_falls_in_the_control_and_a_blind_one_does_not():
    prompts = [
        Prompt(str(i), (image(1, 1, seed=i),), (("user", "q"),), (str(i), "longer"), {}, label="label")
        for i in range(6)
    ]

    class Blind:
        name, version = "blind", "1"

        def score(self, rows):
            return {"blind": [[-float(len(candidate["text"])) for candidate in row["candidates"]] for row in rows]}

    for scorer in (Looks(), Blind()):
        prompts = rescore(prompts, scorer, scorer.name, control=True)
    by_score = {line.score: line for line in lines(prompts, [[Preference(0, 1, "label")]] * 6)}
    assert (by_score["looks"].own.accuracy, by_score["looks"].swapped.accuracy) == (1.0, 0.5)
    assert by_score["blind"].own == by_score["blind"].swapped


# ---------------------------------------------------------------------------------------------------------------- read


def write(folder, table):
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "data-00000.arrow"), table.schema) as writer:
        writer.write_table(table)


@pytest.fixture
def run(tmp_path):
    from pipeline.base.tables import CANDIDATES, OK, PROMPTS, SCORES, error_status

    messages = [{"role": "user", "content": "Describe."}]
    facts = {**FACTS, "objects": [{**thing, "boxes": []} for thing in FACTS["objects"]], "regions": [], "captions": []}
    pictures = [{"bytes": image(1, 1, seed=i), "path": None} for i in range(3)]
    sources = [
        {"id": str(i), "images": [pictures[i]], "prompt": messages, "facts": facts, "source": "s", **OK}
        for i in range(3)
    ]
    texts = ["A red sun and two blue boats.", "A red sun and a cup."]
    candidates = [{"id": str(i), "candidates": [{"text": text} for text in texts], **OK} for i in range(3)]
    values = {"objects.hallucinated": [0.0, 1.0], "objects.covered": [2.0, 1.0], "clip.cosine": [0.3, 0.1]}
    scores = [
        {"id": str(i), "scores": [{"name": k, "version": "1", "values": v} for k, v in values.items()], **OK}
        for i in range(3)
    ]
    scores[2].update(scores=None, **error_status("scorer", "row 2"))
    for name, schema, table in (
        ("source", PROMPTS, sources),
        ("sample", CANDIDATES, candidates),
        ("score", SCORES, scores),
    ):
        filled = [{field: row.get(field) for field in schema.names} for row in table]
        write(tmp_path / "run" / name, pa.Table.from_pylist(filled, schema))
    return tmp_path / "run"


def test_a_run_directory_is_read_and_its_failed_rows_are_left_out(run):
    prompts = read(str(run))
    assert [each.id for each in prompts] == ["0", "1"]
    assert prompts[0].scores["clip.cosine"] == (0.3, 0.1) and prompts[0].facts["objects"][1]["count"] == 2
    assert prompts[0].images == (image(1, 1, seed=0),)


def test_the_command_prints_the_table_and_writes_the_numbers(run, tmp_path):
    from reward.agreement.__main__ import app

    vocabulary = tmp_path / "words.json"
    vocabulary.write_text(json.dumps(dict(WORDS.synonyms)))
    numbers = tmp_path / "out.json"
    done = CliRunner().invoke(app, [str(run), "--vocabulary", str(vocabulary), "--json", str(numbers)])
    assert done.exit_code == 0, done.output
    assert "| clip.cosine | higher | object | 2 | 1.000 (1.000 to 1.000) | 0.000 | - |" in done.output
    assert {line["kind"] for line in json.loads(numbers.read_text())} == {"all", "object"}
    assert CliRunner().invoke(app, [str(run)]).output == done.output  # the stored counts say the same
    wrong = CliRunner().invoke(app, [str(run), "--vocabulary", "reward.text.object_vocabulary:NOTHING"])
    assert wrong.exit_code == 2 and "cannot be imported" in wrong.output


def test_a_published_dataset_is_read_with_the_images_of_its_pairs(tmp_path):
    messages = [{"role": "user", "content": "Describe."}]
    texts = [
        {"text": "a", "scores": [{"name": "s", "value": 1.0}]},
        {"text": "b", "scores": [{"name": "s", "value": None}]},
    ]
    row = {"prompt": messages, "source": "s", "candidates": texts, "error": None}
    candidates = [{**row, "id": "x", "error_type": None}, {**row, "id": "y", "error_type": "engine"}]
    datasets.Dataset.from_list(candidates).save_to_disk(str(tmp_path / "candidates"))
    pairs = datasets.Dataset.from_list([{"id": "x", "images": [{"bytes": image(1, 1), "path": None}]}])
    pairs.cast_column("images", datasets.List(datasets.Image())).save_to_disk(str(tmp_path / "pairs"))
    (read_back,) = read(str(tmp_path))
    assert (
        read_back.scores == {"s": (1.0, None)} and read_back.images == (image(1, 1),) and read_back.texts == ("a", "b")
    )


def test_a_rejected_text_about_other_images_is_not_scored_about_those_of_the_chosen_one(tmp_path):
    for seed in (0, 1):
        (tmp_path / f"{seed}.png").write_bytes(image(1, 1, seed=seed))
    row = {"images": ["0.png"], "prompt": "q", "chosen": "a", "rejected": "b"}
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({**row, "rejected_images": [name]}) + "\n" for name in ("0.png", "1.png")))
    with pytest.raises(ValueError, match="row 1: its rejected text is about other images"):
        read(str(file))


@pytest.mark.parametrize("kinds", [(3, None, 1), (True, False, None), ("b", "", "a")])
def test_kinds_of_errors_may_be_numbers(tmp_path, kinds):
    """Beside those of pairs without one, they could not be put in order."""
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "kind": kind} for kind in kinds]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [replace(each, scores={"s": (1.0, 0.0)}) for each in read(str(tmp_path / "pairs.jsonl"))]
    table = lines(prompts, [preferences(each, None, COLOURS) for each in prompts])
    assert len(table) == 4 and all(isinstance(line.kind, str) for line in table)


def test_labelled_pairs_carry_their_label(tmp_path):
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "kind": "count"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read(str(path))
    assert preferences(first, None, COLOURS) == [Preference(0, 1, "count")]
    assert preferences(second, None, COLOURS) == [Preference(0, 1, "label")]


def test_what_a_person_accepted_and_swapped_says_what_is_better(run, tmp_path):
    from pipeline.base.marks import PairKey
    from reward.agreement.__main__ import app

    good, bad = "A red sun and two blue boats.", "A red sun and a cup."
    unmarked = CliRunner().invoke(app, [str(run), "--marks"])
    assert unmarked.exit_code == 2 and "marks.jsonl" in unmarked.output and "pipeline.browse" in unmarked.output
    marks = {
        PairKey("0", good, bad): "accept",
        PairKey("1", good, bad): "swap",
        PairKey("1", good, "gone"): "accept",
        PairKey("1", bad, good): "reject",
    }
    first, second = marked(read(str(run)), marks)
    assert (first.texts, second.texts) == ((good, bad), (bad, good))
    assert (first.scores["clip.cosine"], second.scores["clip.cosine"]) == ((0.3, 0.1), (0.1, 0.3))
    lines_of = [{"mark": mark, **key._asdict()} for key, mark in marks.items()]
    (run / "marks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines_of))
    done = CliRunner().invoke(app, [str(run), "--marks"])
    assert done.exit_code == 0, done.output
    assert "| (the pair) | higher | all | 2 | 0.500 (0.000 to 1.000) | 0.000 | - |" in done.output
    # Facts are no truth here, so they are measured, too.
    assert "| objects.hallucinated | lower | all | 2 | 0.500" in done.output


def test_pairs_of_one_prompt_are_resampled_together():
    from dataclasses import replace

    of_one = [replace(each, id="p") for each in scored([(1.0, 0.0), (0.0, 1.0)])]
    (line,) = lines(of_one, [[Preference(0, 1, "label")]] * 2)
    assert (line.own.pairs, line.own.prompts, line.own.low, line.own.high) == (2, 1, 0.5, 0.5)
