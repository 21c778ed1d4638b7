"""The root of every error that a user can meet."""

from __future__ import annotations


class UserError(Exception):
    """Says what is wrong, where, and what to do about it. A command line prints that and ends with ``exit_code``."""

    exit_code = 2
