"""The HTTP application, put together from the rooms' routes.

Nothing is answered to whoever is not logged in and has no valid token, but for the few routes in `api.public` and
those by which people and command lines log in.
"""

from fastapi import Depends, FastAPI

from atoll.api import openapi, public, status
from atoll.data.routes import router as data_router
from atoll.faces.http import problems
from atoll.faces.http.auth import Authenticator, caller
from atoll.faces.http.body import BodyLimit
from atoll.faces.http.origin import OwnOrigin
from atoll.faces.http.platform import Platform
from atoll.jobs.estimates import Estimates
from atoll.jobs.fast import FastSubmissions
from atoll.jobs.logs_routes import router as logs_router
from atoll.jobs.prepare import SitesView
from atoll.jobs.routes import router as jobs_router
from atoll.jobs.submit import Submitter
from atoll.people.account_routes import router as accounts_router
from atoll.people.device_routes import router as device_router
from atoll.people.passwords import Passwords
from atoll.people.routes import router as people_router
from atoll.portal import app as portal
from atoll.queue.routes import router as queue_router
from atoll.sites.routes import router as sites_router

PREFIX = "/api/v1"
_DESCRIPTION = "One front door to the computing of a research institution: jobs, sites, projects, files, tokens."


def create_app(platform: Platform) -> FastAPI:
    """The application that serves `platform`."""
    app = FastAPI(
        title="Atoll", version=platform.version, description=_DESCRIPTION, docs_url=None, redoc_url=None,
        openapi_url=None, redirect_slashes=False, separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.platform = platform
    app.state.authenticator = Authenticator(platform)
    app.state.passwords = Passwords()
    app.state.sites = SitesView(platform)
    app.state.estimates = Estimates(platform.clock)
    app.state.submitter = Submitter(platform)
    problems.install(app)
    for room in (
        jobs_router, logs_router, people_router, accounts_router, sites_router, queue_router, data_router,
        status.router,
    ):  # fmt: skip
        app.include_router(room, prefix=PREFIX, dependencies=[Depends(caller)])
    app.include_router(device_router, prefix=PREFIX)
    app.include_router(public.router)
    portal.install(app, platform)
    app.add_middleware(FastSubmissions, path=f"{PREFIX}/jobs", state=app.state)
    app.add_middleware(BodyLimit, streaming_prefix=f"{PREFIX}/files/")
    app.add_middleware(OwnOrigin, address=platform.address)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # the way that FastAPI documents
    return app
