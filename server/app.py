"""The node API: what hospitals' nodes talk to, in its own process and under its own host name in production."""

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from server import errors
from server.limits import BodyLimit
from server.runtime import Runtime, build_runtime
from server.settings import get_settings

DOMAINS = ("hospitals", "cases", "reports", "federation", "registry")


def create_node_api(runtime: Runtime | None = None) -> FastAPI:
    """Build the API over ``runtime`` (else over what the environment names)."""
    own = runtime is None
    runtime = runtime or build_runtime(get_settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if own:
            runtime.database.dispose()

    app = FastAPI(title="Hematovision node API", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.runtime = runtime
    for router in _routers():
        app.include_router(router)
    app.add_api_route("/healthz", health, methods=["GET"])
    errors.register(app)
    app.add_middleware(BodyLimit)
    return app


def health() -> dict[str, str]:
    """Answer that the process lives."""
    return {"status": "ok"}


def _routers() -> list[APIRouter]:
    names = [f"server.{domain}.endpoints" for domain in DOMAINS] + ["server.cases.request_endpoints"]
    return [importlib.import_module(name).router for name in names if importlib.util.find_spec(name)]
