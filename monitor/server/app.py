"""The application: routers, middleware, errors and static files."""

from importlib import metadata
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.staticfiles import StaticFiles

from config.metrics import split_address
from monitor.server.access import login
from monitor.server.access.bodies import BodyLimit
from monitor.server.access.headers import SecurityHeaders
from monitor.server.access.hosts import HostCheck, allowed_hosts
from monitor.server.access.origin import OriginCheck
from monitor.server.api import features, incidents, lists_of_all, live, models, mutes, stream_lists, streams, whatif
from monitor.server.context import ServerContext
from monitor.server.openapi import set_openapi
from monitor.server.pages import incident, incident_mutes, links, overview, stream
from monitor.server.pages import incidents as incidents_page
from monitor.server.pages import login as login_page
from monitor.server.pages import models as models_page
from monitor.server.pages.error import render_error
from monitor.server.problems import add_error_handlers

API_PREFIX = "/api/v1"
_FOLDER = Path(__file__).parent
_API_ROUTERS: tuple[APIRouter, ...] = tuple(
    module.router for module in (streams, stream_lists, features, whatif, models, lists_of_all, incidents, mutes, live)
)
_PAGE_ROUTERS: tuple[APIRouter, ...] = (
    login.router,
    login_page.router,
    overview.router,
    incidents_page.router,
    # Before the verbs, whose addresses have the same form.
    incident_mutes.router,
    incident.router,
    stream.router,
    models_page.router,
    links.router,
)


def create_app(context: ServerContext, *, port: int | None = None) -> FastAPI:
    """Return the application.

    Args:
        context: The shared values of all requests.
        port: The port that the server listens on; None: that of `server.listen`.
    """
    app = FastAPI(
        title="Outrider",
        version=metadata.version("outrider"),
        openapi_url=f"{API_PREFIX}/openapi.json",
        # FastAPI's own pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.state.show_error = render_error
    for router in _API_ROUTERS:
        app.include_router(router, prefix=API_PREFIX)
    for router in _PAGE_ROUTERS:
        app.include_router(router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=_FOLDER / "static", check_dir=False), name="static")
    add_error_handlers(app)
    set_openapi(app)
    hosts = allowed_hosts(context.server, port or split_address(context.server.listen)[1])
    # The last one added is the first that a request passes.
    app.add_middleware(BodyLimit)
    app.add_middleware(OriginCheck, hosts=hosts)
    app.add_middleware(HostCheck, hosts=hosts)
    app.add_middleware(SecurityHeaders)
    return app
