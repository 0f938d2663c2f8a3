"""Routes of pages: what goes wrong is told on a page too."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from atoll.core.errors import AtollError
from atoll.faces.http.problems import answer, from_validation
from atoll.faces.web.templates import show

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Page(APIRoute):
    """A page, for `APIRouter(route_class=Page)`."""

    def get_route_handler(self) -> Handler:
        """The handler, with errors as pages."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except RequestValidationError as error:
                return _told(request, from_validation(error.errors()))
            except AtollError as error:
                return _told(request, error)

        return handle


def _told(request: Request, error: AtollError) -> Response:
    answered = answer(error)  # writes down what its operator has to know
    headers = {} if answered is None else {
        name: value for name, value in answered.headers.items() if name in ("retry-after", "www-authenticate")
    }  # fmt: skip
    values = {"title": error.title, "sentence": error.sentence}
    return show(request, "problem.html", values, status=error.status, headers=headers)
