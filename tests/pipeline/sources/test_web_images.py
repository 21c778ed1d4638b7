"""Images that rows name on the web, through the source itself: the host they name, and no other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loopback import endless, reply, serving
from stage_kit import png


def statuses(make: Any, folder: Path, url: str) -> list[tuple[str, str | None, str | None]]:
    (folder / "a.jsonl").write_text(
        json.dumps({"images": [url], "prompt": "What is it?"}) + "\n" + json.dumps({"images": [], "prompt": "And?"})
    )
    rows = make(kind="jsonl", path=folder / "a.jsonl", allow_http=True, max_image_bytes=100_000)
    return [(row["status"], row["error_type"], row["error"]) for row in rows]


def test_an_image_is_fetched(tmp_path: Path, make: Any) -> None:
    with serving(reply(png())) as server:
        assert [status for status, *_ in statuses(make, tmp_path, f"{server.url}/a.png")] == ["ok", "ok"]


def test_a_redirect_to_another_server_fails_the_row_and_sends_nothing_on(tmp_path: Path, make: Any) -> None:
    with serving(reply(png())) as thief, serving(reply(b"", 302, Location=f"{thief.url}/a.png")) as server:
        url = f"{server.url}/a.png?sig=planted".replace("http://", "http://me:planted@")
        (bad, good) = statuses(make, tmp_path, url)
        assert not thief.requests and good[0] == "ok"
        assert bad[:2] == ("failed", "missing_image") and "redirects to another server" in (bad[2] or "")
        assert "planted" not in (bad[2] or "")


def test_an_image_without_end_fails_the_row(tmp_path: Path, make: Any) -> None:
    with serving(endless(chunked=True)) as server:
        (bad, good) = statuses(make, tmp_path, f"{server.url}/a.png")
        assert bad[1] == "image_too_large" and good[0] == "ok"
