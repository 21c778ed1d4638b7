"""``python -m training.evaluate``: all suites of one model asked at once, stored, resumed, scored and compared."""

import io
import json
import re
from collections import Counter
from dataclasses import fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import help_kit
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_kit import file, turned
from PIL import Image
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError, EngineError, StoreError, TooManyFailures
from pipeline.base.progress import Progress
from pipeline.engines.protocol import Response
from pipeline.engines.scripted import ScriptedEngine
from pipeline.running import executor
from pipeline.running.executor import Executor, process_shard
from pipeline.running.pool import Done
from pipeline.running.store import Run
from pipeline.sampling.config import Sample, VllmOptions
from pipeline.scenes import grammar
from pipeline.sources.admission.prompt_id import prompt_id
from pipeline.sources.admission.verdicts import Verdicts, key
from training.config.evaluation import EvaluateConfig
from training.errors import DataError
from training.evaluate import SuiteOptions, app
from training.evaluation import benchmarks, scenes
from training.evaluation.question import Question
from training.evaluation.result import Provenance
from training.evaluation.session import generate, session, stored
from training.evaluation.session.option_names import as_flags, as_keys
from training.evaluation.session.preprocessing import preprocessing, settings
from training.evaluation.suite import limited, load
from training.evaluation.tally import Tally, mean_of
from training.evaluation.words import coco_words
from training.evaluation.words.coco_words import words

CANNED = Sample.model_validate({"model": "canned", "n": 1, "temperature": 0.0, "engine": {"kind": "scripted"}})
FEW = EvaluateConfig(scenes=12)


class Model:
    """Answers by ``answer(picture, text)`` and remembers what it was asked. Stops the session after ``patience``."""

    def __init__(self, answer, refuse=(), patience=10**9):
        self.answer, self.refuse, self.patience = answer, refuse, patience
        self.asked = []

    def generate(self, requests, sampling):
        engine = ScriptedEngine(answer=lambda request, _: self.answer(*_seen(request)))
        for request in requests:
            if len(self.asked) >= self.patience:
                raise KeyboardInterrupt
            self.asked.append(_seen(request))
            if request.messages[0][1] in self.refuse:
                yield Response(request.id, error_type="timeout", error="no answer in 2 s")
            else:
                yield from engine.generate([request], sampling)


def _seen(request):
    return request.images[0] if request.images else None, request.messages[-1][1]


@pytest.fixture
def here(monkeypatch):
    """``here(model)``: stages run in this process, on ``model``; everything else is as ever."""

    def use(model):
        class InPlace(Executor):
            def _work(self, stage, record, todo):
                return (Done(shard, process_shard(stage, model, self._store, shard, record)) for shard in todo)

        monkeypatch.setattr(session, "Executor", InPlace)
        return model

    return use


@pytest.fixture(scope="module")
def world():
    return scenes.World.of(FEW)


def truthful(world):
    """Says what is so: every description names everything that is there, every question gets its right answer."""
    by_picture = {picture["bytes"]: (name, world.scenes[name]) for name, picture in world.pictures.items()}
    right = {
        (one.image, one.prompt): one.truth.get("answer", one.truth.get("truth"))
        for name in ("pope", "amber_discriminative")
        for one in scenes.load([name], FEW)[0].questions
    }

    def answer(picture, text):
        name, scene = by_picture[picture]
        if text == FEW.describe:
            return " ".join(f"There {item.verb} {item.phrase}." for item in grammar.reading_order(scene))
        return right[name, text].capitalize()

    return answer


def lying(world):
    """Gives the wrong answer to every question, and describes what usually goes along with what is there."""
    truth = truthful(world)
    by_picture = {picture["bytes"]: world.scenes[name] for name, picture in world.pictures.items()}

    def answer(picture, text):
        if text == FEW.describe:
            made_up = scenes.description_truth(by_picture[picture])["hallu"]
            return " ".join(f"There is a red {name}." for name in made_up)
        return {"Yes": "No", "No": "Yes"}[truth(picture, text)]

    return answer


def over_scenes(output, names=tuple(scenes.SUITES), shard_size=40, **options):
    suites = scenes.load(names, FEW)
    text = session.evaluate(suites, CANNED, output, shard_size=shard_size, progress=quiet(), **options)
    return text, json.loads((output / "results.json").read_text())


def quiet():
    return Progress(io.StringIO())


def values(results, suite):
    return {name: metric["value"] for name, metric in results["suites"][suite]["metrics"].items()}


# The world of scenes -------------------------------------------------------------------------------------------------


def test_a_model_that_says_what_is_so_has_the_best_value_of_every_metric(here, world, tmp_path):
    here(Model(truthful(world)))
    text, results = over_scenes(tmp_path)
    assert list(results["suites"]) == [*scenes.SUITES, "amber"]
    assert values(results, "pope") | {"yes_ratio": 0.5} == values(results, "pope")
    assert values(results, "pope")["accuracy"] == values(results, "pope")["adversarial_f1"] == 1.0
    chair = values(results, "chair")
    assert (chair["chair_i"], chair["chair_s"], chair["recall"]) == (0.0, 0.0, 1.0)
    assert values(results, "amber_generative") == {"chair": 0.0, "cover": 1.0, "hal": 0.0, "cog": 0.0}
    amber = values(results, "amber_discriminative")
    assert amber["f1"] == amber["existence_f1"] == amber["number_f1"] == amber["relation_f1"] == 1.0
    assert amber["unparseable_rate"] == 0.0 and amber["action_f1"] is None
    assert values(results, "amber")["amber_score"] == 1.0
    assert values(results, "shr")["shr"] == 0.0 and values(results, "shr")["sentences"] > 1
    assert "| chair | chair_s | 0.000 | 0.000 to 0.000 |" in text


def test_a_model_that_says_what_is_not_so_has_the_worst(here, world, tmp_path):
    here(Model(lying(world)))
    _, results = over_scenes(tmp_path)
    assert values(results, "pope")["accuracy"] == 0.0
    assert values(results, "chair")["chair_i"] == values(results, "chair")["chair_s"] == 1.0
    assert values(results, "amber_generative") == {"chair": 1.0, "cover": 0.0, "hal": 1.0, "cog": 1.0}
    assert values(results, "amber_discriminative")["recall"] == 0.0
    assert values(results, "shr")["shr"] == 1.0


def test_what_several_suites_ask_is_asked_once(here, world, tmp_path):
    model = here(Model(truthful(world)))
    over_scenes(tmp_path)
    assert max(Counter(model.asked).values()) == 1
    suites = scenes.load(scenes.SUITES, FEW)
    distinct = {
        (suite.pictures[question.image]["bytes"], question.prompt) for suite in suites for question in suite.questions
    }
    assert set(model.asked) == distinct


def test_ambers_questions_are_true_of_the_scene_and_of_every_kind(world):
    kinds = Counter()
    for name, scene in world.scenes.items():
        for question in scenes.yes_or_no(scene, name, 0):
            kinds[question.truth["type"], question.truth["truth"]] += 1
            assert _holds(scene, question.prompt) == (question.truth["truth"] == "yes"), question
    assert set(kinds) == {(kind, answer) for kind in scenes.KINDS for answer in ("yes", "no")}
    assert {kinds[kind, "yes"] == kinds[kind, "no"] for kind in scenes.KINDS} == {True}


def _holds(scene, text):
    """The answer to a question of the grammar, read apart here a second time."""
    words = text.rstrip("?").replace(" in the image", "").split()
    things = {form: thing for thing in scene.objects for form in (thing.name, grammar.plural(thing.name))}
    if words[1] == "the":
        first, second = things[words[2]], things[words[-1]]
        cells = [[cell % 3 if "left" in words else cell // 3 for cell in thing.cells] for thing in (first, second)]
        return max(cells[0]) < min(cells[1])
    thing = things.get(words[-1])
    if thing is None:
        return False
    if "exactly" in words:
        return thing.count == {"one": 1, "two": 2, "three": 3}[words[-2]]
    return len(words) < 5 or thing.colour == words[-2]


def test_the_scenes_follow_the_seed_and_are_the_same_every_time():
    again = scenes.load(["amber_discriminative"], FEW)[0]
    assert again.questions == scenes.load(["amber_discriminative"], FEW)[0].questions
    other = scenes.load(["amber_discriminative"], FEW.model_copy(update={"seed": 7}))[0]
    assert not {question.id for question in other.questions} & {question.id for question in again.questions}


def test_a_suite_that_facts_cannot_answer_is_named():
    with pytest.raises(ConfigError, match="suite mmhal has no questions about scenes; use some of pope, chair"):
        scenes.load(["mmhal"], FEW)


# Stored and resumed --------------------------------------------------------------------------------------------------


def test_a_second_call_asks_nothing_and_leaves_the_same_results(here, world, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    second = here(Model(truthful(world)))
    over_scenes(tmp_path)
    assert second.asked == [] and (tmp_path / "results.json").read_bytes() == before


def test_a_killed_session_is_continued_shard_by_shard(here, world, tmp_path):
    first = here(Model(truthful(world), patience=100))
    with pytest.raises(KeyboardInterrupt):
        over_scenes(tmp_path)
    assert not (tmp_path / "results.json").exists()
    finished = {one for table in Run(tmp_path).tables("sample") for one in table["id"].to_pylist()}
    assert 0 < len(finished) <= 100
    second = here(Model(truthful(world)))
    _, results = over_scenes(tmp_path)
    assert len(first.asked) == 100 and len(second.asked) == Run(tmp_path).table("source").num_rows - len(finished)
    assert values(results, "pope")["accuracy"] == 1.0


def test_another_choice_of_suites_asks_only_what_is_new_and_forgets_nothing(here, world, tmp_path):
    first = here(Model(truthful(world)))
    over_scenes(tmp_path, ["chair"])
    second = here(Model(truthful(world)))
    _, results = over_scenes(tmp_path, ["pope"])
    assert len(first.asked) == 12 and not set(first.asked) & set(second.asked)
    assert list(results["suites"]) == ["pope"]
    third = here(Model(truthful(world)))
    over_scenes(tmp_path, ["chair", "pope", "shr"])
    assert third.asked == []


def test_answers_to_prompts_of_other_ids_are_left_as_they_are(here, world, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path, ["chair"])
    run = Run(tmp_path)
    run.save(replace(run.record("source"), schema=3))
    was = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"(?s)schema 3.*give another --output"):
        over_scenes(tmp_path, ["chair"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == was


def test_the_revision_of_prompts_is_what_it_was_before_ids_began_with_images():
    ids = ["061e743e28be36f61adf5bbfc3c58195", "061e743eb5c575a5ae0a982f07ff2524"]
    assert generate.revision(ids) == generate.revision(row_id[8:] for row_id in ids) != generate.revision(ids[:1])


def test_another_decoding_asks_everything_again_and_another_seed_of_greedy_nothing(here, world, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path, ["chair"])
    again = here(Model(truthful(world)))
    over_scenes(tmp_path, ["chair"], seed=5)
    assert again.asked == []
    suites = scenes.load(["chair"], FEW)
    warm = CANNED.model_copy(update={"temperature": 1.0})
    session.evaluate(suites, warm, tmp_path, seed=5, progress=quiet())
    assert len(again.asked) == 12
    told = json.loads((tmp_path / "results.json").read_text())["suites"]["chair"]["provenance"]["decoding"]
    assert told == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 96, "seed": 5}


def test_failed_answers_are_counted_and_asked_for_again(here, world, tmp_path):
    questions = scenes.load(["pope"], FEW)[0].questions
    ((question, _),) = Counter(question.prompt for question in questions).most_common(1)
    failing = here(Model(truthful(world), refuse={question}))
    with pytest.raises(TooManyFailures, match=r"prompts have no answer.*Is there .*timeout: no answer in 2 s"):
        over_scenes(tmp_path, ["pope"])
    assert not (tmp_path / "results.json").exists()
    _, results = over_scenes(tmp_path, ["pope"], max_failure_rate=0.5)
    lost = sum(text == question for _, text in failing.asked) // 2
    counts = results["suites"]["pope"]["counts"]
    assert counts["failed"] == lost > 0 and counts["asked"] > lost
    assert values(results, "pope")["accuracy"] == 1.0
    second = here(Model(truthful(world)))
    _, results = over_scenes(tmp_path, ["pope"])
    assert results["suites"]["pope"]["counts"]["failed"] == 0
    assert {text for _, text in second.asked} == {question}


# The files of benchmarks ---------------------------------------------------------------------------------------------


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


@pytest.fixture
def data(tmp_path):
    """Official files of POPE, COCO's annotations, and MMHal-Bench's, each with its pictures."""
    folder = tmp_path / "data"
    for suite in ("pope", "chair", "mmhal"):
        (folder / suite).mkdir(parents=True)
    for split, absent in {"random": "cup", "popular": "car", "adversarial": "car"}.items():
        rows = [
            {"question_id": 1, "image": image, "text": f"Is there a {thing} in the image?", "label": label}
            for image in ("a.png", "b.png")
            for thing, label in (("dog", "yes"), (absent, "no"))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "pope" / f"coco_pope_{split}.json").write_text(text)
    annotations = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 1}],
    }
    (folder / "chair" / "instances_val2014.json").write_text(json.dumps(annotations))
    captions = {"images": annotations["images"], "annotations": [{"image_id": 1, "caption": "A cup."}]}
    (folder / "chair" / "captions_val2014.json").write_text(json.dumps(captions))
    content = {"image_content": ["dog"], "gt_answer": "A dog."}
    rows = [{"image_src": f"https://x/{name}.png", "question": f"What is {name}?", **content} for name in ("a", "b")]
    (folder / "mmhal" / "response_template.json").write_text(json.dumps(rows))
    for suite in ("pope", "chair", "mmhal"):
        picture(folder / suite / "images" / "a.png", "red")
        picture(folder / suite / "images" / "b.png", "blue")
    return folder


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


SCRIPTED = ("--engine", "kind=scripted", "--engine", 'texts=["Yes, a dog.", "No, a cup."]')


def test_official_files_from_the_command_line_to_the_table(data, tmp_path, ray_cluster):
    output = tmp_path / "out"
    command = ("canned", "--suite", "pope,chair", "--variant", "coco80", "--limit", "2", "--output", output, *SCRIPTED)
    done = invoke(*command, "--data", data)
    assert done.exit_code == 0, done.output
    assert "| pope | accuracy | " in done.stdout and "| chair | chair_i | " in done.stdout
    assert (output / "results.md").read_text().strip() in done.stdout
    assert (output / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert Run(output).table("sample").num_rows == 6 + 2
    results = json.loads((output / "results.json").read_text())
    assert results["suites"]["pope"]["images"] == 2
    about = Provenance(**results["suites"]["chair"]["provenance"])
    assert about.suite == "chair@2" and about.model_revision == "scripted" and about.parser == "none"
    assert about.versions == {"vocabulary": "coco80:coco80@1", "lemmatiser": "none"}
    assert about.decoding["max_tokens"] == 512 and about.prompt == "Please describe this image in detail."

    # A changed picture is another question, and another revision of the data.
    picture(data / "chair" / "images" / "b.png", "green")
    assert invoke(*command, "--data", data).exit_code == 0
    again = Provenance(**json.loads((output / "results.json").read_text())["suites"]["chair"]["provenance"])
    assert again.data_revision != about.data_revision


def test_pictures_may_lie_in_one_folder_for_all(data, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "all").mkdir(exist_ok=True)
        (data / "pope" / "images" / name).rename(tmp_path / "all" / name)
    (pope,) = load(["pope"], data, images=tmp_path / "all")
    assert {one["path"] for one in pope.pictures.values()} == {str(tmp_path / "all" / n) for n in ("a.png", "b.png")}


def test_a_suffix_is_asked_and_told(data):
    (pope,) = load(["pope"], data, shared={"suffix": " Yes or no?"})
    assert all(question.prompt.endswith("image? Yes or no?") for question in pope.questions)
    assert "Yes or no?" in pope.prompt


def test_amber_shr_and_object_halbench_read_their_own_folders(here, data, tmp_path, monkeypatch):
    write = {
        "amber/annotations.json": [
            {"id": 1, "type": "generative", "truth": ["man"], "hallu": ["dog"]},
            {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
        ],
        "amber/query/query_generative.json": [{"id": 1, "image": "a.png", "query": "Describe."}],
        "amber/query/query_discriminative.json": [{"id": 2, "image": "a.png", "query": "Is there a dog?"}],
        "amber/relation.json": {"man": [], "dog": []},
        "shr/val_images_final.json": [{"image_id": 1}],
        "shr/image_data.json": [{"image_id": 1, "width": 8, "height": 8, "url": "https://x/VG/a.png"}],
        "shr/region_descriptions.json": [
            {"regions": [{"image_id": 1, "x": 0, "y": 0, "width": 4, "height": 4, "phrase": "a man"}]}
        ],
        "shr/shr_factual_part1.jsonl": {"1": []},
        "object_halbench/questions.jsonl": {"image_id": 1, "question": "What is there?"},
    }
    for name, content in write.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(json.dumps(content))
    (data / "amber" / "safe_words.txt").write_text("")
    (data / "object_halbench" / "synonyms_refine.txt").write_text("dog")
    for path in (data / "chair").glob("*.json"):
        (data / "object_halbench" / path.name).write_bytes(path.read_bytes())
    for name in ("amber/images/a.png", "shr/images/VG/a.png", "object_halbench/images/a.png"):
        picture(data / name, "red")
    # That variant's lemmatiser is NLTK's, which need not be here.
    monkeypatch.setattr(coco_words, "words", lambda *_: words("coco80"))
    monkeypatch.setattr(coco_words, "lemmatiser_version", lambda _: "none")

    def answer(picture, text):
        if picture is not None:
            return "No" if text.startswith("Is there") else "A man with a dog."
        return "Judgement:\n1. hallucination: no dog" if "sentences" in text else '["a dog", "a cup"]'

    model = here(Model(answer))
    shared = {"nouns": "every_word", "similarity": "exact", "phrases": "every_word"}
    suites = load(benchmarks.names("amber,shr,object_halbench"), data, shared=shared)
    session.evaluate(suites, CANNED, tmp_path / "out", session.Judge("j", "1", spec=JUDGE), progress=quiet())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert values(results, "amber_generative") == {"chair": 0.5, "cover": 1.0, "hal": 1.0, "cog": 1.0}
    assert values(results, "amber_discriminative")["f1"] == 1.0
    assert values(results, "amber")["amber_score"] == 0.75
    assert values(results, "shr")["shr"] == 1.0 and values(results, "object_halbench")["mention"] == 0.0
    assert results["suites"]["amber_generative"]["provenance"]["versions"]["similarity"] == "exact@1"
    assert sum(picture is None for picture, _ in model.asked) == 2


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=20), st.integers(1, 7))
def test_a_limit_draws_whole_images_whatever_their_order(drawn, count):
    questions = [Question(f"{image}{number}{place}", image, "") for place, (image, number) in enumerate(drawn)]
    kept = limited(questions, count, 1)
    images = {question.image for question in kept}
    assert len(images) == min(count, len({question.image for question in questions}))
    assert kept == [question for question in questions if question.image in images]
    assert {question.image for question in limited(questions[::-1], count, 1)} == images
    assert limited(questions, None) == questions


# Judges --------------------------------------------------------------------------------------------------------------


def judging(picture, text):
    """A model that answers about pictures and rates what it is shown without one."""
    return "a dog" if picture is not None else f"Fine.\nRating: {4 if 'What is a?' in text else 1}"


JUDGE = CANNED.model_copy(update={"model": "strict"})


def test_a_judge_is_asked_through_the_same_stages_and_resumed(here, data, tmp_path):
    suites = load(["mmhal"], data)
    model = here(Model(judging))
    judge = session.Judge("strict", "build 7", spec=JUDGE)
    session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert values(results, "mmhal")["score"] == 2.5 and values(results, "mmhal")["hallucination_rate"] == 0.5
    about = results["suites"]["mmhal"]["provenance"]
    assert (about["judge"], about["judge_version"]) == ("strict", "build 7")
    prompts = [text for picture, text in model.asked if picture is None]
    assert len(prompts) == 2 and "> a dog" in prompts[0] and "A dog." in prompts[0]
    again = here(Model(judging))
    session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())
    assert again.asked == []


def test_a_judge_that_does_not_answer_ends_the_call_and_is_asked_again(here, data, tmp_path):
    suites = load(["mmhal"], data)
    judge = session.Judge("strict", "build 7", spec=JUDGE)
    first = here(Model(judging))
    session.evaluate(suites, CANNED, tmp_path / "a", judge, progress=quiet())
    prompts = {text for picture, text in first.asked if picture is None}
    here(Model(judging, refuse=prompts))
    with pytest.raises(TooManyFailures, match=r"2 of 2 prompts have no answer.*timeout"):
        session.evaluate(suites, CANNED, tmp_path / "b", judge, progress=quiet())
    again = here(Model(judging))
    session.evaluate(suites, CANNED, tmp_path / "b", judge, progress=quiet())
    assert {text for _, text in again.asked} == prompts


def thinking(picture, text):
    """As ``judging``, after some thought about everything that it does not say then."""
    about = "It may be no dog." if picture is not None else "Rating: 6 or Rating: 0?"
    return f"<think>{about}</think>\n\n{judging(picture, text)}"


def test_reasoning_is_no_part_of_what_is_judged_nor_of_a_judgement(here, data, tmp_path):
    suites = load(["mmhal"], data)
    model = here(Model(thinking))
    judge = session.Judge("strict", "build 7", spec=JUDGE)
    session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert values(results, "mmhal")["score"] == 2.5 and values(results, "mmhal")["unparseable_rate"] == 0.0
    prompts = [text for picture, text in model.asked if picture is None]
    assert all("> a dog" in prompt and "It may be" not in prompt for prompt in prompts)


def test_a_judge_that_was_cut_while_it_thought_has_rated_nothing(here, data, tmp_path):
    suites = load(["mmhal"], data)
    here(Model(lambda picture, text: "a dog" if picture is not None else "<think>Rating: 6 or"))
    judge = session.Judge("strict", "build 7", spec=JUDGE)
    with pytest.raises(DataError, match=r"2 of 2 judgements of strict end within its reasoning .*id '0' of mmhal"):
        session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())


def test_saved_judgements_are_another_source(here, data, tmp_path):
    suites = load(["mmhal"], data)
    here(Model(judging))
    file, output = tmp_path / "said.jsonl", tmp_path / "out"
    judge = session.Judge("a person", "build unknown", file=file)
    with pytest.raises(DataError, match=r"2 of 2 answers have no judgement in .*said.jsonl.*to_judge.jsonl"):
        session.evaluate(suites, CANNED, output, judge, progress=quiet())
    lines = [json.loads(line) for line in (output / "to_judge.jsonl").read_text().splitlines()]
    told = [(line["suite"], line["id"], line["answer"]) for line in lines]
    assert told == [("mmhal", "0", "a dog"), ("mmhal", "1", "a dog")]
    judgements = [{"id": line["id"], "answer": line["answer"], "judgement": "Rating: 6"} for line in lines]
    file.write_text("".join(json.dumps(judgement) + "\n" for judgement in judgements))
    session.evaluate(suites, CANNED, output, judge, progress=quiet())
    results = json.loads((output / "results.json").read_text())
    assert values(results, "mmhal")["score"] == 6.0
    assert results["suites"]["mmhal"]["provenance"]["judge"] == "a person"
    file.write_text(json.dumps({**judgements[0], "answer": "a cat"}) + "\n")
    with pytest.raises(DataError, match=r"line 1: the judged answer is not the one that is stored"):
        session.evaluate(suites, CANNED, output, judge, progress=quiet())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([None, "Rating: 6"], r"1 of 2 answers have no judgement in .*said.jsonl, the first is id '0' of mmhal"),
        ([" \n", "Rating: 6"], r"1 of 2 answers have no judgement"),
        (["<think>Rating: 6 or", "Rating: 6"], r"1 of 2 answers have no judgement"),
        ([4, "Rating: 6"], r"said.jsonl, line 1: 'judgement' is 4, not a text; give what the judge wrote"),
        (["Rating: 6", True], r"said.jsonl, line 2: 'judgement' is True, not a text"),
        ([["Rating: 6"], "Rating: 6"], r"said.jsonl, line 1: 'judgement' is \['Rating: 6'\], not a text"),
        (["Rating: 6", "Rating: 6", "Rating: 2"], r"said.jsonl, line 3: id '0' of mmhal has another judgement"),
        (["Rating: 6", "Rating: 5", "Rating: 6"], None),  # said again
        ([None, "Rating: 5", "Rating: 6"], None),  # said at last
    ],
)
def test_what_is_no_judgement_is_none_and_never_a_rating(here, data, tmp_path, lines, message):
    suites = load(["mmhal"], data)
    here(Model(judging))
    rows = [{"id": str(at % 2), "judgement": judgement} for at, judgement in enumerate(lines)]
    (tmp_path / "said.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    judge = session.Judge("a person", "build unknown", file=tmp_path / "said.jsonl")
    if message is not None:
        with pytest.raises(DataError, match=message):
            session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())
        return
    session.evaluate(suites, CANNED, tmp_path / "out", judge, progress=quiet())
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert values(results, "mmhal")["score"] == 5.5


def test_a_judgement_is_not_taken_for_another_answer(here, data, tmp_path):
    suites = load(["mmhal"], data)
    file, output = tmp_path / "said.jsonl", tmp_path / "out"
    judge = session.Judge("a person", "build unknown", file=file)
    file.write_text("".join(json.dumps({"id": id, "judgement": "Rating: 6"}) + "\n" for id in ("0", "1")))
    here(Model(judging))
    session.evaluate(suites, CANNED, output, judge, progress=quiet())
    session.evaluate(suites, CANNED, output, judge, progress=quiet())
    here(Model(lambda picture, text: "two cats"))
    other = CANNED.model_copy(update={"top_p": 0.9})  # every answer is another one
    with pytest.raises(
        DataError, match=r"line 1: this judgement was used for another answer.*give each line its answer"
    ):
        session.evaluate(suites, other, output, judge, progress=quiet())
    lines = [json.loads(line) for line in (output / "to_judge.jsonl").read_text().splitlines()]
    judgements = [{"id": line["id"], "answer": line["answer"], "judgement": "Rating: 6"} for line in lines]
    file.write_text("".join(json.dumps(judgement) + "\n" for judgement in judgements))
    session.evaluate(suites, other, output, judge, progress=quiet())


def test_other_weights_at_the_same_path_are_asked_anew(here, data, tmp_path):
    suites = load(["mmhal"], data)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one")
    spec = CANNED.model_copy(update={"model": str(folder), "engine": VllmOptions()})
    judge = session.Judge("strict", "build 7", spec=spec.model_copy(update={"max_tokens": 96}))
    first = here(Model(judging))
    session.evaluate(suites, spec, tmp_path / "out", judge, progress=quiet())
    (folder / "model.safetensors").write_bytes(b"two")
    second = here(Model(judging))
    session.evaluate(suites, spec, tmp_path / "out", judge, progress=quiet())
    assert set(second.asked) == set(first.asked) and len(second.asked) == len(first.asked) == 4


# What a newcomer does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a MODEL, or two outputs with --compare A B"),
        (("canned",), "give --data DIR with the files of the benchmarks, or --data scenes"),
        (("canned", "--data", "DATA"), "name suites of the files, such as --suite pope,chair"),
        (("canned", "--data", "nowhere", "--suite", "pope"), "there is no folder nowhere"),
        (("canned", "--data", "DATA", "--suite", "shr", "--judge", "other"), "there is no val_images_final.json in"),
        (("canned", "--data", "DATA", "--suite", "pope,chiar"), "'chiar' is none of the benchmarks -> did you"),
        (("canned", "--data", "DATA", "--suite", " , "), "--suite names none"),
        (("canned", "--data", "DATA", "--suite", "mmhal"), "suite mmhal needs a judge: give --judge MODEL"),
        (("canned", "--data", "DATA", "--suite", "mmhal", "--judgements", "x.jsonl"), "say with --judge NAME who"),
        (("canned", "--data", "DATA", "--suite", "pope", "--parser", "exact"), "parser: Input should be 'official'"),
        (("canned", "--data", "DATA", "--suite", "amber", "--parser", "x"), "parser: Input should be 'exact', 'of"),
        (("canned", "--data", "DATA", "--suite", "pope", "--option", "pope.sufix=x"), "did you mean suffix?"),
        (("canned", "--data", "DATA", "--suite", "pope", "--option", "chair.limit=2"), "of chair: it is not asked"),
        (("canned", "--data", "DATA", "--suite", "amber", "--option", "amber.suffix=x"), "it stands for amber_"),
        (("canned", "--data", "DATA", "--suite", "pope", "--option", "suffix=x"), "write SUITE.KEY=VALUE, such"),
        (("canned", "--data", "scenes", "--option", "chair.variant=coco80"), "chair.variant is for the files of"),
        (("canned", "--data", "DATA/chair", "--suite", "pope"), "there is no coco_pope_*.json in"),
        (("canned", "--data", "DATA", "--suite", "chair", "--variant", "coco80"), "fewer with --limit 2"),
        (("canned", "--data", "DATA", "--suite", "chair"), "give --synonyms FILE, or --variant coco80"),
        (("canned", "--data", "DATA", "--suite", "pope", "--engine", "kindscripted"), "write KEY=VALUE"),
        (("canned", "--data", "DATA", "--suite", "pope", "--engine", "tensor=2"), "--engine tensor: unknown key"),
        (("canned", "--data", "DATA", "--suite", "pope", "--base-url", "ftp://x"), "--base-url: base_url must be"),
        (("canned", "--data", "DATA", "--suite", "mmhal", "--judge", "j", "--judge-base-url", "x"), "--judge-base-url"),
        (("canned", "--data", "DATA", "--suite", "chair", "--synonyms", "no.txt"), "no file no.txt; give --syn"),
        (("canned", "--data", "DATA", "--suite", "pope", "--ids", "no.txt"), "no file no.txt; give --ids FILE"),
        (("canned", "--data", "DATA", "--suite", "pope", "--images", "no"), "there is no folder no; give --images DIR"),
        (("canned", "--data", "scenes", "--ids", "no.txt"), "scenes have their own"),
        (("./no/model", "--data", "scenes"), "no model folder './no/model'"),
        (("canned", "--data", "scenes", "--suffix", "x"), "scenes have their own"),
        (("--compare", "DATA", "DATA"), "holds no results.json"),
    ],
)  # fmt: skip
def test_every_error_says_what_to_do(data, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "evaluate", lambda *_: pytest.fail("something was asked"))
    scripted = ("--engine", "kind=scripted") if "canned" in arguments and "--base-url" not in arguments else ()
    done = invoke(*(argument.replace("DATA", str(data)) for argument in arguments), *scripted)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr


def test_a_model_that_is_nowhere_is_said_before_an_engine_starts(data, tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "Pool", lambda *_, **__: pytest.fail("an engine was started"))
    done = invoke("nobody/has-this", "--data", data, "--suite", "pope", "--output", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "'nobody/has-this' is in no cache of this machine" in " ".join(done.stderr.split())


def test_errors_of_the_engines_name_flags_and_those_of_a_recipe_its_keys():
    with pytest.raises(EngineError) as error, as_flags():
        raise EngineError("no answer from http://x/v1", "start it, or correct sample.engine.base_url; see sample.model")
    assert str(error.value).endswith("-> start it, or correct --base-url; see MODEL")
    with pytest.raises(ConfigError, match=r"^--judge-engine tensor: unknown key"), as_flags(of_judge=True):
        raise ConfigError("engine.tensor: unknown key")
    for text, named in {
        "give --images DIR": "give evaluate.images DIR",
        "give --synonyms FILE, or --variant coco80": (
            "give evaluate.options.SUITE.synonyms FILE, or evaluate.options.SUITE.variant coco80"
        ),
        "give --option chair.ids=FILE": "give evaluate.options.chair.ids=FILE",
        "fewer with --limit 3": "fewer with evaluate.limit 3",
    }.items():
        with pytest.raises(DataError) as renamed, as_keys():
            raise DataError(text)
        assert str(renamed.value) == named


def test_a_flag_stands_for_an_option_of_suites_and_lists_its_values():
    text, _ = help_kit.told("training.evaluate")
    listed_words = set(re.findall(r"\w+", text))
    hints = [get_type_hints(benchmarks.find(name)) for name in benchmarks.BENCHMARKS]
    for flag in {field.name for field in fields(SuiteOptions)} - {"option", "scenes"}:
        kinds = [kind[flag] for kind in hints if flag in kind]
        assert kinds, flag
        assert {value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)} <= listed_words, (
            flag
        )


@pytest.fixture
def suites_of(data, tmp_path, monkeypatch):
    """The suites that a command line would ask, by name, and what it says."""

    def ask(*arguments):
        prompts = []
        monkeypatch.setattr(session, "evaluate", lambda suites, *_: prompts.extend(suites))
        done = invoke("canned", "--data", data, "--output", tmp_path / "out", *SCRIPTED, *arguments)
        assert done.exit_code == 0, done.output
        return {suite.name: suite for suite in prompts}, done.stderr

    return ask


def test_an_option_of_one_suite_is_what_its_flag_gives_to_all(suites_of):
    flags = ("--suite", "pope,chair", "--limit", "2", "--variant", "coco80", "--suffix", " Well?", "--prompt", "Say.")
    options = ("chair.variant=coco80", 'pope.suffix=" Well?"', "chair.prompt=Say.", "chair.limit=2")
    by_flag, notes = suites_of(*flags)
    by_option, _ = suites_of("--suite", "pope,chair", *(word for option in options for word in ("--option", option)))
    for name in ("pope", "chair"):
        assert by_flag[name].questions == by_option[name].questions
        assert by_flag[name].prompt == by_option[name].prompt
        assert by_flag[name].versions == by_option[name].versions
    assert by_flag["pope"].prompt == "as in the data, and ' Well?' behind it" and by_flag["chair"].prompt == "Say."
    assert "note" not in notes


def test_a_flag_that_no_asked_suite_has_changes_nothing_and_says_so(suites_of):
    (plain, _), (given, notes) = suites_of("--suite", "pope"), suites_of("--suite", "pope", "--variant", "coco80")
    assert plain["pope"].questions == given["pope"].questions
    assert "note: --variant changes nothing: no suite that is asked has it" in notes


def test_a_file_that_names_an_image_elsewhere_is_refused(data):
    path = data / "mmhal" / "response_template.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**rows[0], "image_src": "https://x/.."}]))
    with pytest.raises(DataError, match=r"image '\.\.' is not below"):
        load(["mmhal"], data)


def test_an_image_that_cannot_be_read_is_a_failed_answer(here, data, tmp_path):
    (data / "pope" / "images" / "a.png").write_bytes(b"no image")
    suites = load(["pope"], data)
    here(Model(lambda *_: "Yes"))
    session.evaluate(suites, CANNED, tmp_path, max_failure_rate=0.5, progress=quiet())
    results = json.loads((tmp_path / "results.json").read_text())["suites"]["pope"]
    assert results["images"] == 1 and results["counts"]["failed"] == 3 and results["counts"]["asked"] == 6


def test_help_answers_in_under_a_second():
    text, seconds = help_kit.told("training.evaluate")
    assert "--compare" in text and seconds < 1


# Two models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(here, world, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path / "good", ["pope", "chair", "shr"])
    here(Model(lying(world)))
    over_scenes(tmp_path / "bad", ["pope", "chair"])
    return tmp_path / "good", tmp_path / "bad"


def test_two_models_are_compared_image_by_image(two, tmp_path):
    good, bad = two
    done = invoke("--compare", good, bad / "results.json", "--output", tmp_path / "compare")
    assert done.exit_code == 0, done.output
    assert "| pope | accuracy | 1.000 | 0.000 | -1.000 | -1.000 to -1.000 | < 0.001 |" in done.stdout
    assert "not compared: shr" in done.stdout
    assert (tmp_path / "compare" / "compare.md").read_text().strip() == done.stdout.strip()
    assert (tmp_path / "compare" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    comparison = json.loads((tmp_path / "compare" / "compare.json").read_text())
    assert comparison["suites"]["chair"]["chair_i"]["difference"] == 1.0


def test_a_model_does_not_differ_from_itself(two, tmp_path):
    good, _ = two
    invoke("--compare", good, good, "--output", tmp_path / "same")
    comparison = json.loads((tmp_path / "same" / "compare.json").read_text())
    defined = [metric for of in comparison["suites"].values() for metric in of.values() if metric["a"] is not None]
    assert {(metric["difference"], metric["p_value"]) for metric in defined} == {(0.0, 1.0)}


def test_results_that_were_not_made_alike_are_refused_with_the_fields(two, tmp_path):
    good, bad = two
    changed = json.loads((bad / "results.json").read_text())
    changed["suites"]["pope"]["provenance"]["parser"] = "lmms_eval"
    changed["suites"]["chair"]["provenance"]["decoding"]["max_tokens"] = 7
    changed["suites"]["chair"]["provenance"]["model_revision"] = "another, as it should be"
    (bad / "results.json").write_text(json.dumps(changed))
    done = invoke("--compare", good, bad)
    assert done.exit_code == 2
    assert "pope.parser: official and lmms_eval" in done.stderr and "chair.decoding: " in done.stderr
    assert "model_revision" not in done.stderr and not (bad / "compare.md").exists()


def test_answers_that_are_missing_for_one_model_are_named_with_the_remedy(two):
    good, bad = two
    tallies = json.loads((bad / "tallies.json").read_text())
    lost = tallies["chair"]["images"].pop()
    tallies["chair"]["sums"] = {name: of[:-1] for name, of in tallies["chair"]["sums"].items()}
    (bad / "tallies.json").write_text(json.dumps(tallies))
    done = invoke("--compare", good, bad)
    assert done.exit_code == 2 and f"image '{lost}' is missing from the second" in done.stderr
    assert "evaluate that model again" in done.stderr


def test_a_provenance_that_is_malformed_is_named(two):
    good, bad = two
    content = json.loads((bad / "results.json").read_text())
    content["suites"]["chair"]["provenance"]["colour"] = "red"
    (bad / "results.json").write_text(json.dumps(content))
    done = invoke("--compare", good, bad)
    assert done.exit_code == 2 and "results.json, suite chair: is malformed" in done.stderr


def test_a_failed_answer_is_kept_and_keeps_two_models_from_being_compared(here, world, tmp_path):
    names = ["amber_generative", "amber_discriminative"]
    here(Model(truthful(world)))
    over_scenes(tmp_path / "a", names)
    asked = scenes.load(["amber_discriminative"], FEW)[0].questions
    here(Model(truthful(world), refuse={asked[0].prompt}))
    over_scenes(tmp_path / "b", names, max_failure_rate=0.5)
    lost = sorted(question.id for question in asked if question.prompt == asked[0].prompt)
    of_both, kept = (json.loads((tmp_path / name / "tallies.json").read_text()) for name in ("a", "b"))
    assert {tuple(tally["failed"]) for tally in of_both.values()} == {()}
    assert kept["amber_discriminative"]["failed"] == lost and kept["amber_generative"]["failed"] == []
    assert kept["amber"]["failed"] == [f"questions {id}" for id in lost]
    done = invoke("--compare", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 2 and f"question '{lost[0]}' is missing from the second of the two" in done.stderr
    assert invoke("--compare", tmp_path / "b", tmp_path / "b", "--output", tmp_path / "same").exit_code == 0
    for name, tallies in (("a", of_both), ("b", kept)):  # as files of before are
        bare = {suite: {key: of for key, of in tally.items() if key != "failed"} for suite, tally in tallies.items()}
        (tmp_path / name / "tallies.json").write_text(json.dumps(bare))
    done = invoke("--compare", tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 2 and f"failed: 0 and {len(lost)} answers" in done.stderr


def test_models_without_a_common_suite_cannot_be_compared(here, world, two, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path / "other", ["amber_generative"])
    done = invoke("--compare", two[0], tmp_path / "other")
    assert done.exit_code == 2 and "evaluate both on one suite" in done.stderr


term = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: tuple(map(float, pair)))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.dictionaries(st.sampled_from(["x", "y"]), term))))
def test_a_tally_survives_its_file(rows):
    tally = Tally.of(rows, ["x", "y"], {"mean": mean_of(["x", "y"])}, {"asked": len(rows)})
    again = stored.of_json(json.loads(json.dumps(stored.as_json(tally))))
    assert again.images == tally.images and again.counts == tally.counts and again.failed is None
    lost = replace(tally, failed=("1", "2"))
    assert stored.of_json(json.loads(json.dumps(stored.as_json(lost)))).failed == lost.failed
    assert again.values() == tally.values() and again.intervals(20) == tally.intervals(20)


# What a number depends on --------------------------------------------------------------------------------------------


def test_the_headlines_cover_every_suite():
    assert all(benchmarks.find(name).headline for name in benchmarks.BENCHMARKS)


def test_image_preprocessing_is_told_by_the_processor(tmp_path):
    options = settings("scenes-vlm")
    assert options["size"] == {"height": 96, "width": 96} and options["do_resize"] is True
    spec = Sample(model="scenes-vlm", max_image_pixels=99)
    assert preprocessing(spec).startswith("at most 99 pixels, then {") and '"resample": 3' in preprocessing(spec)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "X", "processor_class": "Y"}')
    assert settings(str(tmp_path)) == {"image_processor_type": "X"}
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "config.json").write_text("{}")
    assert preprocessing(Sample(model=str(tmp_path))).startswith("unknown")
    served = Sample.model_validate({"model": "x", "engine": {"kind": "openai", "base_url": "http://a/v1"}})
    assert preprocessing(served) == "the server's own"


def test_the_id_of_a_prompt_is_that_of_the_table(here, world, tmp_path):
    here(Model(truthful(world)))
    over_scenes(tmp_path, ["pope"])
    (pope,) = scenes.load(["pope"], FEW)
    prompts = {
        question.id: generate.ImagePrompt(question.prompt, (pope.pictures[question.image],))
        for question in pope.questions
    }
    assert set(generate.identify(prompts).values()) == set(Run(tmp_path).table("source")["id"].to_pylist())


@pytest.mark.parametrize("picture", [turned(6), file(Image.new("RGBA", (8, 8))), turned(1)])
def test_the_id_of_a_prompt_about_a_picture_to_be_interpreted_is_that_of_the_table_too(picture):
    """Or its answer would not be found."""
    image = {"bytes": picture, "path": None}
    (known,) = generate.identify({"a": generate.ImagePrompt("What?", (image,))}).values()
    (verdict,) = Verdicts(10**9, 10**9, hashed=False).look({key(image, None): (image, None)}).values()
    assert known == prompt_id([verdict.digest], [{"role": "user", "content": "What?"}])


# The real thing ------------------------------------------------------------------------------------------------------


def test_the_scenes_model_itself_is_measured(here, vllm_engine, tmp_path):
    here(vllm_engine)
    spec = Sample(model="scenes-vlm", n=1, temperature=0.0, max_tokens=64)
    text = session.evaluate(scenes.load(scenes.SUITES, FEW), spec, tmp_path, progress=quiet())
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(results["suites"][name]["counts"]["failed"] == 0 for name in scenes.SUITES)
    assert 0.5 < values(results, "pope")["accuracy"] < 1 and values(results, "chair")["recall"] > 0.6
    assert values(results, "amber_discriminative")["unparseable_rate"] == 0.0
    assert 0 < values(results, "shr")["shr"] < 0.7 and "| shr | shr | " in text
    about = results["suites"]["shr"]["provenance"]
    assert about["model_revision"].startswith("sha256:") and "CLIPImageProcessor" in about["image_preprocessing"]
