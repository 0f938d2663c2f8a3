"""Questions on jobs that nobody has submitted: could it run, where, and when? The dispatcher answers them.

Each person has one at a time; the next takes its place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from atoll.store import events
from atoll.store.tables import questions


@dataclass(frozen=True, slots=True)
class Question:
    """A question, with the row (its columns) that the job would have."""

    id: str
    columns: Mapping[str, Any]


def ask(connection: Connection, person: str, question: Question, now: int) -> None:
    """Ask, instead of what the person asked before."""
    connection.execute(delete(questions).where(questions.c.person == person))
    columns = json.dumps(question.columns)
    connection.execute(insert(questions).values(person=person, id=question.id, columns=columns, asked_at=now))
    events.append(connection, [{"at": now, "kind": "question"}])


def unanswered(connection: Connection, most: int) -> list[Question]:
    """The oldest questions that wait for an answer."""
    query = select(questions).where(questions.c.answer.is_(None)).order_by(questions.c.asked_at).limit(most)
    return [Question(row.id, json.loads(row.columns)) for row in connection.execute(query)]


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
