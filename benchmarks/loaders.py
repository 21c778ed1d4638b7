"""Do the projects that a dataset is exported to open it, and find the same texts and images?

    python benchmarks/loaders.py --llama-factory PYTHON --ms-swift PYTHON --rlaif-v CHECKOUT --json OUT

Each PYTHON is the interpreter of an environment with that project in it (``pip install llamafactory``, ``pip install
ms-swift``), and CHECKOUT a clone of github.com/RLHF-V/RLAIF-V; what is not given is left out. TRL is read by this
interpreter. Every row of ``--dataset``, by default rows that are hard to pass on, is exported, opened by the project's
own loader and compared: texts as such, images by their pixels. Then the loader makes of it what its trainer is given.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import output

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]
TAG = "<image>"


def pixel_digest(image: Any) -> str:
    """What is seen in an image of Pillow."""
    image = image.convert("RGB")
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def without_tags(messages: Sequence[Mapping[str, str]], images: int, always: bool = False) -> list[Row]:
    """Messages without the tags of their images; a line break belongs to them before white space, or ``always``."""
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    for turn in turns:
        if images and turn["role"] == "user":
            text = turn["content"].removeprefix(TAG * images)
            assert text != turn["content"], f"no tags: {turn}"
            turn["content"] = text[1:] if text[:1] == "\n" and (always or text[1:2].isspace()) else text
            break
    return turns


# ---------------------------------------- by the interpreter of the project


def versions(*modules: Any) -> dict[str, str]:
    return {module.__name__: module.__version__ for module in modules}


def llama_factory(folder: str, name: str, model: str) -> Row:
    import datasets
    import llamafactory
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.data.loader import _get_merged_dataset, get_dataset
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    options = {"stage": "dpo", "do_train": True, "model_name_or_path": model, "template": "llava", "dataset": name}
    options |= {"dataset_dir": folder, "output_dir": f"{folder}-saves", "cutoff_len": 100_000, "report_to": "none"}
    options |= {"overwrite_cache": True, "use_cpu": True}
    model_args, data_args, training_args, _, _ = get_train_args(options)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    rows = []
    for row in _get_merged_dataset(data_args.dataset, model_args, data_args, training_args, stage="rm"):
        files = row["_images"] or []
        pictures = template.mm_plugin._regularize_images(files, image_max_pixels=1 << 40, image_min_pixels=1)["images"]
        system = [{"role": "system", "content": row["_system"]}] if row["_system"] else []
        chosen, rejected = (answer["content"] for answer in row["_response"])
        prompt = [*system, *without_tags(row["_prompt"], len(files))]
        rows.append(
            {"prompt": prompt, "chosen": chosen, "rejected": rejected, "images": list(map(pixel_digest, pictures))}
        )
    ready = get_dataset(template, model_args, data_args, training_args, stage="rm", **module)["train_dataset"]
    return {"rows": rows, "ready": len(ready), "versions": versions(llamafactory, datasets)}


def ms_swift(folder: str, name: str, model: str) -> Row:
    os.environ["ROOT_IMAGE_DIR"] = folder
    import datasets
    import swift
    from swift import get_processor, get_template
    from swift.dataset import load_dataset
    from swift.template.template_inputs import TemplateInputs
    from swift.template.vision_utils import load_image

    table, _ = load_dataset(f"{folder}/{name}.jsonl", strict=True, load_from_cache_file=False)
    template = get_template(get_processor(model, model_type="llava1_5_hf"), template_type="llava1_5_hf")
    template.set_mode("rlhf")
    rows, ready = [], 0
    for row in table:
        inputs = TemplateInputs.from_dict(row)
        sides = []
        for side in (inputs.chosen, inputs.rejected):
            system = [] if side.system is None else [{"role": "system", "content": side.system}]
            sides.append([*system, *without_tags(side.messages, len(side.images))])
        (*prompt, chosen), (*other, rejected) = sides
        assert prompt == other
        pictures = [load_image(image["path"]) for image in inputs.chosen.images]
        answers = {"chosen": chosen["content"], "rejected": rejected["content"]}
        rows.append({"prompt": prompt, **answers, "images": list(map(pixel_digest, pictures))})
        ready += bool(template.encode(row)["chosen_input_ids"])
    return {"rows": rows, "ready": ready, "versions": versions(swift, datasets)}


def trl(folder: str, name: str, model: str) -> Row:
    import datasets
    import torch
    import transformers
    import trl

    table = datasets.load_dataset(folder, split="train", cache_dir=f"{folder}-cache")
    rows = []
    for row in table:
        answers = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
        rows.append({"prompt": row["prompt"], **answers, "images": list(map(pixel_digest, row["images"]))})
    options = {"per_device_train_batch_size": 1, "max_length": None, "report_to": [], "use_cpu": True, "bf16": False}
    trainer = trl.DPOTrainer(
        model=transformers.LlavaForConditionalGeneration.from_pretrained(model, dtype=torch.float32),
        args=trl.DPOConfig(output_dir=f"{folder}-saves", **options),
        train_dataset=table,
        processing_class=transformers.AutoProcessor.from_pretrained(model),
    )
    ready = sum(1 for batch in trainer.get_train_dataloader() if len(batch["input_ids"]) == 2)
    return {"rows": rows, "ready": ready, "versions": versions(trl, datasets)}


def rlaif_v(folder: str, name: str, model: str) -> Row:
    """As its README says, the dataset's place is put into the loader; of log-probs
    that it would ask a model for, it gets zeros."""
    import datasets
    import muffin.data.datasets as loader
    import torch
    from muffin.eval.muffin_inference_logp import write_logp_to_preference_parquet

    def load_dataset(path: str, **options: Any) -> Any:
        return datasets.load_dataset(folder if path == "openbmb/RLAIF-V-Dataset" else path, **options)

    def inference_logp(_model: Any, _tokenizer: Any, data: Any, cache: str, *_: Any, **__: Any) -> None:
        write_logp_to_preference_parquet(data, cache, [[0.0, 0.0, [0.0], 0.0, 0.0, [0.0]]] * len(data))

    class Datasets:
        Image = datasets.Image

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    Datasets.load_dataset = staticmethod(load_dataset)  # type: ignore[attr-defined]
    loader.hf_datasets, loader.inference_logp = Datasets, inference_logp
    rows = []
    for item in loader.RLAIFVDataset(f"{folder}-logps", reference_model=model):
        question = [{"role": "user", "content": item["question"]["value"]}]
        answers = {side: item[side]["value"] for side in ("chosen", "rejected")}
        rows.append(
            {"prompt": without_tags(question, 1, always=True), **answers, "images": [pixel_digest(item["image"])]}
        )
    return {"rows": rows, "ready": len(rows), "versions": versions(datasets)}


CHILDREN: dict[str, Callable[[str, str, str], Row]] = {
    "llama_factory": llama_factory,
    "ms_swift": ms_swift,
    "trl": trl,
    "rlaif_v": rlaif_v,
}


# ---------------------------------------- by this interpreter


def expected_rows(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    from pipeline.base.images import image_files, pixels

    return [
        {
            "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in row["prompt"]],
            **{side: row[side][0]["content"] for side in ("chosen", "rejected")},
            "images": [pixel_digest(pixels.decode(image_files.load(image))) for image in row["images"] or ()],
        }
        for row in rows
    ]


def differences(there: Sequence[Row], wanted: Sequence[Row]) -> list[tuple[Row | None, Row | None]]:
    return [two for two in itertools.zip_longest(there, wanted) if two[0] != two[1]]


def fitting(name: str, rows: Sequence[Row]) -> Sequence[Row]:
    if name == "llama_factory":  # an empty system text is none to it
        return [
            {**row, "prompt": [turn for turn in row["prompt"] if turn["role"] != "system" or turn["content"]]}
            for row in rows
        ]
    if name == "rlaif_v":
        return [row for row in rows if len(row["images"]) == 1 and [turn["role"] for turn in row["prompt"]] == ["user"]]
    return rows


def compare(
    name: str, python: str, dataset: Path, rows: Sequence[Row], folder: Path, checkout: Path | None = None
) -> Row:
    from pipeline.base.model_names import BUILT_IN
    from pipeline.exporting.formats import FORMATS
    from pipeline.exporting.write_export import export

    out = folder / name
    done = export(FORMATS[name], dataset, out, skip_unfit=True)
    moved = out.rename(folder / f"{name}-moved")
    answer = folder / f"{name}.result"
    command = [python, __file__, "child", name, str(moved), out.name, str(BUILT_IN["scenes-vlm"]), str(answer)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(checkout or "")}
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=folder, env=environment)
    reply = json.loads(answer.read_text())
    wanted = fitting(name, rows)
    if differing := differences(reply["rows"], wanted):
        print(f"{name} differs:\n  {differing[0][0]}\n  {differing[0][1]}", file=sys.stderr)
    return {
        "rows": done.pairs,
        "left_out": sum(done.left_out.values()),
        "images": sum(len(row["images"]) for row in reply["rows"]),
        "different": len(differing),
        "different_if_one_row_is_moved": len(differences(reply["rows"], [*wanted[1:], *wanted[:1]])),
        "ready_to_train_on": reply["ready"],
        "versions": reply["versions"],
    }


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--dataset", type=Path, help="a published dataset; default: rows that are hard to pass on")
    parser.add_argument("--llama-factory", metavar="PYTHON")
    parser.add_argument("--ms-swift", metavar="PYTHON")
    parser.add_argument("--rlaif-v", metavar="CHECKOUT", type=Path)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kit")]
    import export_kit

    from pipeline.exporting import published_pairs

    pythons = {"llama_factory": options.llama_factory, "ms_swift": options.ms_swift, "trl": sys.executable}
    with tempfile.TemporaryDirectory(prefix="loaders-") as place:
        folder = Path(place)
        dataset = options.dataset
        if dataset is None:
            rows = [*export_kit.conversations(folder), *export_kit.questions(folder)]
            dataset = export_kit.published(folder / "dataset", rows)
        else:
            rows = published_pairs.open_published(dataset).with_format("arrow")[:].to_pylist()
        wanted = expected_rows(rows)
        result = {name: compare(name, python, dataset, wanted, folder) for name, python in pythons.items() if python}
        if options.rlaif_v:
            checkout = options.rlaif_v.resolve()
            result["rlaif_v"] = compare("rlaif_v", sys.executable, dataset, wanted, folder, checkout)
    output.tell(result, options.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _, _, project, *arguments, answer_file = sys.argv
        Path(answer_file).write_text(json.dumps(CHILDREN[project](*arguments)))
    else:
        main()
