"""The short way to `POST /jobs`, which scripts call a thousand times a second.

What FastAPI does for a request costs as much as all the rest of a submission. A request without parameters needs none
of it; the route in `routes` says what this does, and does the same for requests with parameters.
"""

import logging

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.faces.http import problems
from atoll.jobs.routes import answer_submission

log = logging.getLogger(__name__)


class FastSubmissions:
    """ASGI middleware that answers `POST` to `path` by itself."""

    def __init__(self, app: ASGIApp, path: str, state: State) -> None:
        self._app = app
        self._path = path
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"] == self._path
            and not scope["query_string"]
        ):
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        state = self._state
        try:
            who = await state.authenticator.find(request)
            return await answer_submission(request, who, state.platform, state.sites, state.submitter, hold=False)
        except Exception as error:
            expected = problems.answer(error)
            if expected is not None:
                return expected
            log.exception("a submission failed")
            return problems.fault()
