"""Views of the list of jobs that people keep: the query of an address under a name."""

from sqlalchemy import Connection, delete, func, insert, select, update

from atoll.core.errors import Exhausted
from atoll.store.tables import views

MOST = 20
"""Views that one person may keep."""


def of_person(connection: Connection, person: str) -> list[tuple[str, str]]:
    """Names and queries, by name."""
    query = select(views.c.name, views.c.query).where(views.c.person == person)
    # sorted here: databases have other ideas of the order of letters
    return sorted((row.name, row.query) for row in connection.execute(query))


def put(connection: Connection, person: str, name: str, query: str) -> None:
    """Keep a view; one of the same name is replaced. Raises Exhausted."""
    mine = (views.c.person == person) & (views.c.name == name)
    if connection.execute(update(views).where(mine).values(query=query)).rowcount:
        return
    count = connection.execute(select(func.count()).select_from(views).where(views.c.person == person)).scalar_one()
    if count >= MOST:
        raise Exhausted("too_many_views", f"You keep {MOST} views already; remove one first.", field="name")
    connection.execute(insert(views).values(person=person, name=name, query=query))


def remove(connection: Connection, person: str, name: str) -> None:
    """Forget a view; does nothing where there is none."""
    connection.execute(delete(views).where(views.c.person == person, views.c.name == name))
