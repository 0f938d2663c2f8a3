"""The address of the list of jobs is its state: what of it means what, and the addresses of other states."""

from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from atoll.core.errors import Invalid
from atoll.core.ids import JobRef
from atoll.core.spec import JobClass
from atoll.core.states import ACTIVE, WAITING, JobState
from atoll.store.listing import SORTS, Listed
from atoll.store.people import Principal

PER_PAGE = 50
GROUPS: dict[str, frozenset[JobState]] = {
    "waiting": WAITING, "running": ACTIVE, "succeeded": frozenset({JobState.SUCCEEDED}),
    "failed": frozenset({JobState.FAILED}), "cancelled": frozenset({JobState.CANCELLED}),
}  # fmt: skip
"""States that people look for together."""
_STATES = frozenset(state.value for state in JobState)
_CLASSES = frozenset(each.value for each in JobClass)
_MOST_PAGES = 1_000_000
MINE = "me"


@dataclass(frozen=True)
class Address:
    """What the list shows. Empty fields ask for nothing; what nobody could mean is taken for empty."""

    q: str = ""
    state: str = ""
    class_: str = ""
    site: str = ""
    project: str = ""
    owner: str = ""
    sort: str = "-id"
    page: int = 1

    @classmethod
    def read(cls, query: QueryParams) -> Self:
        """The state in an address."""
        sort = query.get("sort", "")
        page = query.get("page", "")
        state, class_ = query.get("state", ""), query.get("class", "")
        return cls(
            q=_word(query.get("q", "")),
            state=state if state in GROUPS or state in _STATES else "",
            class_=class_ if class_ in _CLASSES else "",
            site=_word(query.get("site", "")),
            project=_word(query.get("project", "")),
            owner=_word(query.get("owner", "")),
            sort=sort if sort.removeprefix("-") in SORTS else "-id",
            page=int(page) if page.isascii() and page.isdecimal() and 0 < int(page[:7]) <= _MOST_PAGES else 1,
        )

    @property
    def query(self) -> str:
        """It as the part of an address after the question mark; without what is as usual."""
        fields = {
            "q": self.q, "state": self.state, "class": self.class_, "site": self.site, "project": self.project,
            "owner": self.owner, "sort": "" if self.sort == "-id" else self.sort,
            "page": "" if self.page == 1 else str(self.page),
        }  # fmt: skip
        return urlencode({name: value for name, value in fields.items() if value})

    @property
    def lasting(self) -> str:
        """The query of the first page: what a view keeps."""
        return replace(self, page=1).query

    def to(self, **changes: Any) -> str:
        """The address of the list with changes; on its first page, unless they say another."""
        query = replace(self, **{"page": 1, **changes}).query
        return f"/jobs?{query}" if query else "/jobs"

    @property
    def here(self) -> str:
        """The address of this very page of the list."""
        return self.to(page=self.page)

    def sorted_by(self, key: str) -> str:
        """Where the header of a column leads: first up, then down; of times and ids the newest first."""
        up, down = key, f"-{key}"
        first, second = (down, up) if key in ("id", "started") else (up, down)
        return self.to(sort=second if self.sort == first else first)

    def order_of(self, key: str) -> str | None:
        """`ascending` or `descending` where the list is sorted by a column."""
        if self.sort.removeprefix("-") != key:
            return None
        return "descending" if self.sort.startswith("-") else "ascending"

    @property
    def is_filtered(self) -> bool:
        """Whether anything is left out."""
        return replace(self, sort="-id", page=1) != Address()

    @property
    def is_newest(self) -> bool:
        """Whether new jobs belong on this page."""
        return self.page == 1 and self.sort == "-id"

    def wanted(self, who: Principal) -> Listed:
        """What to look for; members see their own."""
        owner = self.owner or None
        if not who.administrator or owner == MINE:
            owner = who.person
        states = GROUPS.get(self.state) or (frozenset({JobState(self.state)}) if self.state else frozenset())
        return Listed(
            owner=owner, states=states, class_=self.class_ or None, site=self.site or None,
            project=self.project or None, text=self.q or None, job=_job(self.q),
        )  # fmt: skip


def _word(text: str) -> str:
    """What was typed, without what no name has."""
    return "".join(letter for letter in text if letter.isprintable()).strip()[:255]


def _job(text: str) -> int | None:
    """The job that a search names by its id, if it does."""
    try:
        return JobRef.parse(text).job
    except Invalid:
        return None
