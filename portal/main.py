"""The portal's composition root."""

import gc

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from portal import errors
from portal.access import authorise
from portal.security import SecurityHeaders
from portal.static_files import STATIC, CompressedFiles
from portal.views import ROUTERS
from server.app import create_node_api
from server.limits import BodyLimit
from server.runtime import Runtime, build_runtime
from server.settings import get_settings
from shared.logging import configure_logging

NODE_API = "/api/node/"


def create_app(runtime: Runtime | None = None) -> FastAPI:
    """Build the portal; in the demo it serves the node API on the same address too."""
    own = runtime is None  # started by a server, not by a test: logging is ours to set up
    if runtime is None:
        configure_logging("portal")
        runtime = build_runtime(get_settings())
    app = FastAPI(title="Hematovision", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.runtime = runtime
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(authorise)])
    app.mount("/static", CompressedFiles(directory=STATIC), name="static")
    errors.register(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    if runtime.settings.demo:
        app.add_middleware(NodeApiBeside, node_api=create_node_api(runtime))
    if own:
        # What stays for good is not looked through again and again: a quarter of a second in which nobody is answered.
        gc.collect()
        gc.freeze()
    return app


class NodeApiBeside:
    """ASGI middleware: hands node requests to the node API, untouched by the portal's cookies and pages."""

    def __init__(self, app: ASGIApp, node_api: ASGIApp) -> None:
        self.app = app
        self.node_api = node_api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        chosen = self.node_api if scope["type"] == "http" and scope["path"].startswith(NODE_API) else self.app
        await chosen(scope, receive, send)
