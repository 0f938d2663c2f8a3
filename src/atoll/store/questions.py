"""Questions on jobs: could one run that nobody has submitted, where, and when? What would help one that waits?

The dispatcher answers them. Each person has one of each kind at a time; the next takes its place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from atoll.store import events
from atoll.store.tables import questions


@dataclass(frozen=True, slots=True)
class Question:
    """A question: of a job that nobody has submitted, or of one that waits."""

    id: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row that the job would have."""
    job: int | None = None
    """The job that waits."""


_WAITS = "?"
"""Before the name of a person who asks of a job that waits."""
_JOB = "job"


def ask(connection: Connection, person: str, question: Question, now: int) -> None:
    """Ask, instead of what the person asked before."""
    columns = question.columns
    if question.job is not None:
        person, columns = _WAITS + person, {_JOB: question.job}
    connection.execute(delete(questions).where(questions.c.person == person))
    row = {"person": person, "id": question.id, "columns": json.dumps(columns), "asked_at": now}
    connection.execute(insert(questions).values(row))
    events.append(connection, [{"at": now, "kind": "question"}])


def unanswered(connection: Connection, most: int) -> list[Question]:
    """The oldest questions that wait for an answer."""
    query = select(questions).where(questions.c.answer.is_(None)).order_by(questions.c.asked_at).limit(most)
    return [_read(row.id, row.person, json.loads(row.columns)) for row in connection.execute(query)]


def _read(number: str, person: str, columns: Mapping[str, Any]) -> Question:
    return Question(number, job=columns[_JOB]) if person.startswith(_WAITS) else Question(number, columns)


def answer(connection: Connection, answers: Mapping[str, str], now: int) -> None:
    """Answer questions, by id, in JSON."""
    for question, text in answers.items():
        connection.execute(update(questions).where(questions.c.id == question).values(answer=text))
    events.append(connection, [{"at": now, "kind": "answer"}])


def answer_to(connection: Connection, question: str) -> str | None:
    """The answer; None as long as there is none. Raises KeyError where its person has asked something else since."""
    row = connection.execute(select(questions.c.answer).where(questions.c.id == question)).one_or_none()
    if row is None:
        raise KeyError(question)
    text: str | None = row.answer
    return text


def forget(connection: Connection, question: str) -> None:
    """Nobody waits for the answer any more."""
    connection.execute(delete(questions).where(questions.c.id == question))
