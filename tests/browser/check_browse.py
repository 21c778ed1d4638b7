"""The pages of ``pipeline.browse`` in a real Chromium: ``make browser``.

Filters, searches, sorts, opens a link afresh and the reason of a gate, enlarges an image, swaps a pair by a key and
finds it swapped in the published rows. Nothing may be asked of another host, nothing may be wider than the window, and
no script may fail. First over a run that is made up, then over the photos of ``examples/photos``, which go through
``vlm-preference init``, ``plan`` and ``run``. ``--run DIR`` takes a copy of that run in place of both, ``--out DIR``
keeps screenshots at 1300 and 390 pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "pipeline"), str(HERE.parents[1])]

import chromium  # noqa: E402

if TYPE_CHECKING:
    from pipeline.browsing.shown import ShownPrompt

PHOTOS = HERE.parents[1] / "examples" / "photos"
WIDTHS = (1300, 390)


def made(folder: Path) -> Path:
    """A run with everything in it, and gates that stop some of its texts."""
    from dataclasses import replace

    import fake_run

    from pipeline.running.store import Run

    run = Run(fake_run.make(folder / "scenes", prompts_count=90))
    record = run.record("pair")
    assert record is not None
    run.save(replace(record, options={**record.options, "min_words": 6}))
    return run.path


def photographed(folder: Path) -> Path:
    """The photos of the example with their annotations, as somebody would begin with a folder of their own."""
    sys.path[:0] = [str(PHOTOS)]
    import run
    import tiny_qwen

    folder.mkdir()
    annotations = PHOTOS / "annotations"
    content = json.loads((annotations / "instances_photos.json").read_text())
    photos = (folder / "my photos").resolve()
    photos.mkdir()
    for image in content["images"]:
        shutil.copy(run._photos_of_scikit_image() / image["file_name"], photos)
    shutil.copytree(annotations, photos / "annotations")
    model = tiny_qwen.save(folder / "model", [category["name"] for category in content["categories"]])
    recipe = folder / "my recipe.yaml"
    changes = [f"output_dir={folder / 'runs'}", "sample.max_tokens=96", "pair.max_length_ratio=8"]
    for words in (
        ("init", photos, "--model", model, "--out", recipe),
        ("plan", recipe, *changes),
        ("run", recipe, *changes),
    ):
        command = [Path(sys.executable).with_name("vlm-preference"), *words]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return folder / "runs" / "my-photos"


def published(run: Path) -> list[dict[str, Any]]:
    import datasets

    from pipeline.publishing.config import Publish
    from pipeline.publishing.publish import publish
    from pipeline.running.store import Run

    folder = publish(Run(run), Publish(), lambda rows: "A card.").path
    rows: list[dict[str, Any]] = datasets.load_from_disk(str(folder / "pairs")).remove_columns("images").to_list()
    return rows


def kept_out(run: Path) -> Iterator[ShownPrompt]:
    """The prompts with a text that a gate, a null or a veto kept out of a pair."""
    from pipeline.browsing.shown import Reader
    from pipeline.running.store import Run

    reader = Reader(Run(run), "a")
    for shard in reader.run.shards("source"):
        ids = reader.run.read("source", shard)["id"].to_pylist()
        for row in reader.rows((shard, prompt_id) for prompt_id in ids).values():
            prompt = reader.show(row, "", {})
            if any(candidate.bars for candidate in prompt.candidates):
                yield prompt


class Check:
    def __init__(self, binary: str, tab: chromium.Chromium, base: str, run: Path, out: Path | None) -> None:
        self.binary, self.tab, self.base, self.run, self.out = binary, tab, base, run, out

    def all(self) -> None:
        self.tab.size(1300, 1000)
        for step in (
            *(self.filter, self.search, self.sort, self.link, self.keys, self.gate, self.enlarge, self.swap),
            self.widths,
        ):
            step()
            print(f"{step.__name__}: as it should be")
        outside = [request for request in self.tab.requests if not request.startswith((self.base, "about:", "data:"))]
        assert not outside, outside
        assert not self.tab.complaints, self.tab.complaints
        print(f"{len(self.tab.requests)} requests, none to another host, no complaint")

    def found(self) -> int:
        return int(self.tab.run("document.querySelector('.found b').textContent").replace(",", ""))

    def filter(self) -> None:
        self.tab.open(self.base)
        everything = self.found()
        self.tab.follow(
            "(() => { const s = document.querySelector('select[name=reason]'); s.value = 'paired'; "
            "s.dispatchEvent(new Event('change')); })()"
        )
        assert self.tab.run("location.search") == "?reason=paired", "a view has a link"
        assert 0 < self.found() < everything
        assert self.tab.run("[...document.querySelectorAll('.outcome')].every(e => e.textContent === 'paired')")

    def search(self) -> None:
        word = self.tab.run("document.querySelector('.side p').textContent.match(/[A-Za-z]{2,}/)[0]")
        self.tab.open(self.base)
        self.tab.key("/")
        assert self.tab.run("document.activeElement.name") == "q"
        self.tab.write(word)
        with self.tab.leaving():
            self.tab.key("Enter")
        assert self.tab.run("location.search") == f"?q={word}"
        assert self.found() > 0

    def sort(self) -> None:
        self.tab.open(f"{self.base}?sort=margin")
        text = self.tab.run("[...document.querySelectorAll('.verdict > span')].map(e => e.textContent).join('\\n')")
        margins = [float(number.replace(",", "")) for number in re.findall(r"margin ([\d.,]+)", text)]
        assert margins and margins == sorted(margins, reverse=True), margins

    def link(self) -> None:
        self.tab.open(f"{self.base}?reason=paired&side=rejected&sort=objects.hallucinated&order=asc")
        ids = "[...document.querySelectorAll('[data-open]')].map(e => e.search).join()"
        address, shown = self.tab.run("location.href"), self.tab.run(ids)
        self.tab.open(self.base)
        assert self.tab.run(ids) != shown
        fresh = chromium.Chromium(self.binary)
        try:
            fresh.open(address)
            assert fresh.run(ids) == shown
        finally:
            fresh.close()

    def keys(self) -> None:
        self.tab.open(self.base)
        for key in ("j", "j", "k"):
            self.tab.key(key)
        assert self.tab.run("[...document.querySelectorAll('.card')].indexOf(document.activeElement)") == 0
        with self.tab.leaving("location.pathname === '/prompt'"):
            self.tab.key("Enter")
        first = self.tab.run("location.search")
        for key, same in (("ArrowRight", False), ("ArrowLeft", True)):
            with self.tab.leaving():
                self.tab.key(key)
            assert (self.tab.run("location.search") == first) is same
        with self.tab.leaving("location.pathname === '/'"):
            self.tab.key("Escape")

    def gate(self) -> None:
        prompt = next(kept_out(self.run), None)
        assert prompt is not None, "no text was kept out in this run"
        self.tab.open(f"{self.base}?q={prompt.id}")
        self.tab.follow("document.querySelector('[data-open]').click()")
        reasons = self.tab.run("[...document.querySelectorAll('.candidate .reason')].map(e => e.textContent)")
        bars = [bar for candidate in prompt.candidates for bar in candidate.bars]
        assert [reason.split("; it may not be")[0] for reason in reasons] == [
            f"{bar.kind} {bar.name}: {bar.reason}" for bar in bars
        ]
        self.tab.run("document.querySelector('.candidate .reason').scrollIntoView({block: 'center'})")
        self.shoot("gate")

    def enlarge(self) -> None:
        self.tab.open(f"{self.base}?reason=paired")
        self.tab.click("a.enlarge img")
        self.tab.wait("document.querySelector('dialog[open] img')?.naturalWidth > 0")
        assert self.tab.run("location.pathname") == "/"
        assert self.tab.run("document.querySelector('dialog img').getBoundingClientRect().width") > 250
        self.tab.key("Escape")
        self.tab.wait("!document.querySelector('dialog')")

    def swap(self) -> None:
        before = published(self.run)
        self.tab.open(f"{self.base}?reason=paired")
        self.tab.key("j")
        with self.tab.leaving("document.querySelector('.pair.swap')"):
            self.tab.key("s")
        assert "published as rejected" in self.tab.run("document.querySelector('.pair.swap').textContent")
        texts = self.tab.run("[...document.querySelectorAll('.pair.swap .side p')].map(e => e.textContent)")
        self.shoot("swapped")
        swapped = [row for row in published(self.run) if row["policy"].endswith(":swapped")]
        assert [[row[side][0]["content"] for side in ("rejected", "chosen")] for row in swapped] == [texts]
        self.tab.open(f"{self.base}?mark=swap")
        assert self.found() == 1
        with self.tab.leaving():
            self.tab.key("u")
        assert not (self.run / "marks.jsonl").exists()
        assert published(self.run) == before

    def widths(self) -> None:
        for width in WIDTHS:
            self.tab.size(width, 1000)
            for name, path in (("list", "?reason=paired"), ("prompt", "")):
                self.tab.open(self.base + path)
                if name == "prompt":
                    self.tab.follow("document.querySelector('[data-open]').click()")
                wide = self.tab.run("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} at {width}: {wide} pixels wide"
                self.shoot(f"{name}-{width}")

    def shoot(self, name: str) -> None:
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            self.tab.screenshot(self.out / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    binary = chromium.find()
    if binary is None:
        sys.exit("no Chromium here: nothing was checked; install it (apt-get install chromium), or name it in CHROMIUM")
    with tempfile.TemporaryDirectory(prefix="browser-") as name:
        folder = Path(name)
        if options.run:
            runs = [Path(shutil.copytree(options.run, folder / options.run.name))]
            (runs[0] / "marks.jsonl").unlink(missing_ok=True)
        else:
            runs = [made(folder), photographed(folder / "photos")]
        for run in runs:
            check(binary, run, options.out / run.name if options.out else None)


def check(binary: str, run: Path, out: Path | None) -> None:
    command = [sys.executable, "-m", "pipeline.browse", str(run), "--no-open", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    tab = chromium.Chromium(binary)
    try:
        assert server.stdout is not None
        Check(binary, tab, server.stdout.readline().strip(), run, out).all()
    finally:
        tab.close()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
