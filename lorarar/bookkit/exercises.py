"""Exercises: a check that says what is wrong, and an answer of the reader's to be checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def attempt(check: Callable[[Any], object], answer: object) -> bool:
    """Run an exercise's check on an answer and print the outcome: ``✓ name: right`` or ``✗ name: hint``.

    Args:
        check: ``check_<name>(answer)`` of the chapter's module in `lorarar.bookkit.checks`; it raises
            AssertionError with a hint for an answer that is wrong.
        answer: the reader's, the solution's, or a plausible wrong one.
    """
    line = outcome(check, answer)
    print(line)
    return line.startswith("✓")


def outcome(check: Callable[[Any], object], answer: object) -> str:
    """Return the line that `attempt` prints."""
    name = check.__name__.removeprefix("check_")
    try:
        check(answer)
    except NotImplementedError:
        return f"✗ {name}: not written yet"
    except AssertionError as error:
        return f"✗ {name}: {error or 'not right yet'}"
    except Exception as error:
        return f"✗ {name}: stopped with {type(error).__name__}: {error}"
    return f"✓ {name}: right"
