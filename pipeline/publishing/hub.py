"""Send a published dataset to the Hub: one commit, so that nobody sees half of it.

Shards go first, and the Hub keeps what it has got; a second try does not send it again. Files of an earlier dataset of
ours that are no part of this one are removed by the same commit, because the card's patterns would read them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.base import secrets
from pipeline.base.errors import PipelineError, shorten
from pipeline.publishing.outgoing import OutgoingFile, is_ours

_TYPE = "dataset"
_LATER = "the same command goes on where this one stopped"
#: What the other threads of an upload see when the first of them has lost the network.
_CLOSED = "client has been closed"
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class HubError(PipelineError):
    """The Hub cannot be reached, or does not take the dataset."""


def check_name(repo: str) -> None:
    """
    Raises:
        HubError: it is no name of a repository of somebody's.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name of a repository ({error})", "give OWNER/NAME") from error
    if repo.count("/") != 1:
        raise HubError(f"{repo!r} does not say whose repository it is", "give OWNER/NAME")


def send(
    going: Sequence[OutgoingFile],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Preference pairs",
    api: Any = None,
) -> str:
    """Make the repository and its branch ``revision`` if they are not there, and put the files into it; the address.

    ``api`` is a ``huggingface_hub.HfApi``, by default one with the token that is found as the Hub's own tools find it.

    Raises:
        HubError: the Hub refuses or cannot be reached. What it has got by then it keeps, and nobody sees.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = api or HfApi()
    token = api.token or get_token()
    if not token:
        raise HubError("nobody is logged in at the Hub", _LOG_IN)
    of_repo: dict[str, Any] = {"repo_id": repo, "repo_type": _TYPE}
    try:
        # Without `private` it is the owner's setting that decides.
        api.create_repo(**of_repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(**of_repo).private:
            raise HubError(
                f"{repo} is there already, and everybody can read it",
                "make it private in its settings on the Hub, give another name, or leave --private out",
            )
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(**of_repo, branch=revision, exist_ok=True)
        names = {file.name for file in going}
        old = [name for name in api.list_repo_files(**of_repo, revision=revision) if is_ours(name)]
        api.create_commit(
            **of_repo,
            revision=revision,
            commit_message=message,
            operations=[
                *(CommitOperationDelete(name) for name in old if name not in names),
                *(CommitOperationAdd(file.name, str(file.path)) for file in going),
            ],
        )
    except HubError:
        raise
    except Exception as error:  # huggingface_hub, its HTTP client and its transfers each raise their own kinds
        raise _told(error, repo, token) from None
    return f"{api.endpoint}/datasets/{repo}" + (f"/tree/{revision}" if revision else "")


def _told(error: Exception, repo: str, token: str) -> HubError:
    """What happened, in a line, without what the library says of itself; and what to do."""
    chain = list(_causes(error))
    said = " ".join(str(getattr(error, "server_message", None) or error).split()).replace(token, secrets.MASK)
    status = next((code for one in chain if (code := _status(one)) is not None), None)
    if "Invalid metadata in README.md" in said:
        return HubError(f"the Hub does not take the card ({shorten(said, 600)})", "mend its header, or publish again")
    if status is not None and status >= 500:
        return HubError(f"the Hub has a fault of its own ({status})", f"try again later; {_LATER}")
    if status is not None:
        what, remedy = _BY_STATUS.get(status, _refused)(repo)
        return HubError(f"{what} ({status}: {shorten(_server_says(chain) or said, 300)})", remedy)
    if any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain):
        return HubError("HF_HUB_OFFLINE is set, so the Hub is not asked", "set HF_HUB_OFFLINE=0 for this command")
    if any(type(one).__module__.startswith("httpx") or _CLOSED in str(one) for one in chain):
        where = os.environ.get("HF_ENDPOINT", "the Hub")
        return HubError(f"{where} cannot be reached ({shorten(said, 300)})", f"check the network; {_LATER}")
    root = " ".join(str(chain[-1]).split()).replace(token, secrets.MASK)
    return HubError(f"{repo}: the upload failed ({type(chain[-1]).__name__}: {shorten(root, 600)})", _LATER)


#: What a status means here, and the remedy.
_BY_STATUS: dict[int, Callable[[str], tuple[str, str]]] = {
    401: lambda repo: (f"the Hub does not know who you are, or not what {repo} is", _LOG_IN),
    403: lambda repo: (
        f"your token may not write to {repo}",
        f"give a name of your own, become a member of {repo.partition('/')[0]}, or use a token that may write",
    ),
    404: lambda repo: (
        f"the Hub has no such place in {repo}",
        "check OWNER, NAME and --revision; private ones are there for members",
    ),
    409: lambda repo: (f"somebody else changes {repo} at the same time", f"wait a moment; {_LATER}"),
    412: lambda repo: (f"somebody else has changed {repo} meanwhile", f"{_LATER}"),
    429: lambda repo: ("the Hub has had too many requests of yours", f"wait some minutes; {_LATER}"),
}


def _refused(repo: str) -> tuple[str, str]:
    return f"the Hub refuses the upload to {repo}", "mend what it names, and give the same command again"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) and code >= 400 else None


def _server_says(chain: Sequence[BaseException]) -> str:
    return next((" ".join(str(text).split()) for one in chain if (text := getattr(one, "server_message", None))), "")
