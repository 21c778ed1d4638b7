"""The command: what it says, and that a real server of it answers on this machine alone."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request

import fake_run
import help_kit
import pytest
from typer.testing import CliRunner

from pipeline.browse import app

TELL = CliRunner()


def test_help_is_light():
    text, seconds = help_kit.told("pipeline.browse")
    assert "--compare" in text and "--no-open" in text and seconds < 1


def test_a_real_server_answers_and_ends_in_order(tmp_path):
    run = fake_run.make(tmp_path / "run", prompts_count=12)
    command = [sys.executable, "-m", "pipeline.browse", str(run), "--no-open", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"<b>12</b>" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_what_is_no_run_gets_one_line(tmp_path):
    fake_run.make(tmp_path / "quickstart", prompts_count=4)
    said = TELL.invoke(app, [str(tmp_path / "quickstrat"), "--no-open"])
    assert said.exit_code == 2 and f"did you mean {tmp_path / 'quickstart'}?" in said.output
    said = TELL.invoke(app, [str(tmp_path), "--no-open"])
    assert said.exit_code == 2 and "has no source/data-*.arrow" in said.output
    assert f"give one of the runs in it, such as {tmp_path / 'quickstart'}" in said.output
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.json").write_text("{}")
    said = TELL.invoke(app, [str(tmp_path / "begun"), "--no-open"])
    assert said.exit_code == 2 and "its prompts are not there yet" in said.output


def test_a_port_that_is_taken_is_said(tmp_path):
    run = fake_run.make(tmp_path / "run", prompts_count=4)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = TELL.invoke(app, [str(run), "--no-open", "--port", port])
    assert said.exit_code == 2 and f"--port {port}: Address already in use" in said.output


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_wrong_arguments_get_one_line(arguments):
    assert TELL.invoke(app, arguments).exit_code == 2
