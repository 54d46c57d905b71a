"""The file of a study among people: its questions and pictures, and every answer as soon as it is given.

It is one SQLite file in its write-ahead mode. An answer is on the disk before the participant is told that it
was kept; a process that is killed loses none that was confirmed. Of a participant it knows a random token.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from lorarar.atomic import atomic
from lorarar.study.survey import CHOICES, Question, as_json, from_json, order

SCHEMA = """
CREATE TABLE about (facts TEXT NOT NULL);
CREATE TABLE pictures (key TEXT PRIMARY KEY, png BLOB NOT NULL);
CREATE TABLE questions (id INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE participants (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE);
CREATE TABLE answers (
    participant INTEGER NOT NULL REFERENCES participants ON DELETE CASCADE,
    question INTEGER NOT NULL REFERENCES questions,
    choice TEXT NOT NULL CHECK (choice IN ('first', 'similar', 'second')),
    PRIMARY KEY (participant, question)
) WITHOUT ROWID;
"""
MARK = 0x4C524152
"""SQLite's ``application_id`` of such a file: "LRAR"."""


class Answer(NamedTuple):
    """One answer: by the participant of that number, at that place of their order."""

    participant: int
    place: int
    question: Question
    swapped: bool
    choice: str


class NotKept(OSError):
    """An answer could not be written; ``full`` says whether for want of room."""

    def __init__(self, text: str, full: bool) -> None:
        super().__init__(text)
        self.full = full


class Study:
    """A study among people, open for reading and writing.

    Raises:
        ValueError: the file is missing, or is no study.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"no study {path}: draw its questions with `lorarar study questions -o {path}`")
        self.path = path
        self.db = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            if self.db.execute("PRAGMA application_id").fetchone()[0] != MARK:
                raise ValueError(
                    f"{path} is no study among people: expected a file of `lorarar study questions`"
                )
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = FULL")  # the answer is on the disk, not on its way there
            self.db.execute("PRAGMA foreign_keys = ON")
            self.db.execute("PRAGMA secure_delete = ON")  # who withdraws is overwritten, not only unlisted
            self.about: dict[str, Any] = json.loads(self.db.execute("SELECT facts FROM about").fetchone()[0])
            rows = self.db.execute("SELECT facts FROM questions ORDER BY id").fetchall()
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise ValueError(f"{path} is no study among people, or is damaged: {error}") from error
        except ValueError:
            self.db.close()
            raise
        self.questions = [from_json(json.loads(facts)) for (facts,) in rows]

    @classmethod
    def create(
        cls,
        path: Path,
        about: Mapping[str, Any],
        questions: Iterable[Question],
        pictures: Mapping[str, bytes],
    ) -> None:
        """Write a new study, whole or not at all. Raises ValueError if the file exists."""
        if path.exists():
            raise ValueError(f"{path} exists, and may hold answers: name another file, or move it away")
        with atomic(path) as aside, closing(sqlite3.connect(aside)) as db, db:
            db.executescript(SCHEMA)
            db.execute(f"PRAGMA application_id = {MARK}")
            db.execute("INSERT INTO about VALUES (?)", (json.dumps(dict(about)),))
            db.executemany("INSERT INTO pictures VALUES (?, ?)", pictures.items())
            db.executemany(
                "INSERT INTO questions VALUES (?, ?)", [(q.id, json.dumps(as_json(q))) for q in questions]
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def picture(self, key: str) -> bytes | None:
        """Return a picture's PNG file, None if there is none of that key."""
        found = self.db.execute("SELECT png FROM pictures WHERE key = ?", (key,)).fetchone()
        return found and found[0]

    def join(self) -> str:
        """Add a participant and return their token. Raises NotKept."""
        token = secrets.token_urlsafe(12)
        self._write("INSERT INTO participants (token) VALUES (?)", (token,))
        return token

    def knows(self, token: str) -> bool:
        """Tell whether a participant has this token."""
        return self.db.execute("SELECT 1 FROM participants WHERE token = ?", (token,)).fetchone() is not None

    def given(self, token: str) -> dict[int, str]:
        """Return a participant's answers: {question's id: choice}."""
        return dict(
            self.db.execute(
                "SELECT question, choice FROM answers JOIN participants ON participant = id WHERE token = ?",
                (token,),
            )
        )

    def keep(self, token: str, question: int, choice: str) -> None:
        """Keep an answer; the same one twice is one, and another one to the same question replaces it.

        Raises:
            ValueError: no such choice or participant.
            NotKept: it could not be written, and what was kept before stands.
        """
        if choice not in CHOICES:
            raise ValueError(f"no choice {choice!r}: expected one of {', '.join(CHOICES)}")
        written = self._write(
            "INSERT INTO answers SELECT id, ?, ? FROM participants WHERE token = ? "
            "ON CONFLICT DO UPDATE SET choice = excluded.choice",
            (question, choice, token),
        )
        if not written:
            raise ValueError("no such participant")

    def withdraw(self, token: str) -> None:
        """Forget a participant and their answers. Raises NotKept."""
        self._write("DELETE FROM participants WHERE token = ?", (token,))

    def answers(self) -> list[Answer]:
        """Return all answers, participant by participant, in the order of their questions."""
        found: list[Answer] = []
        joined = self.db.execute("SELECT id, token FROM participants ORDER BY id").fetchall()
        for person, token in joined:
            given = self.given(token)
            for place, (question, swapped) in enumerate(order(token, self.questions), 1):
                if question.id in given:
                    found.append(Answer(person, place, question, swapped, given[question.id]))
        return found

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        try:
            return self.db.execute(statement, values).rowcount
        except sqlite3.OperationalError as error:
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            raise NotKept(f"{self.path}: {'the disk is full' if full else error}", full) from error
