"""Templates in, pages out."""

from pathlib import Path
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse

from portal import charts, reading_keys, recipe_words, words
from portal.access import allowed
from portal.sessions import theme
from portal.static_files import STATIC, VersionedAssets
from server.accounts.schemas import Principal
from shared.contracts.ontology import CLASS_INFO, CellClass

NAV: Final = (
    ("worklist", "/worklist", "Worklist", "w"),
    ("reports", "/reports", "Reports", "r"),
    ("insights", "/insights", "Insights", "i"),
    ("rounds", "/rounds", "Rounds", "o"),
    ("nodes", "/nodes", "Nodes", "n"),
    ("models", "/models", "Models", "m"),
    ("turnaround", "/turnaround", "Turn-around", "t"),
    ("people", "/people", "People", "p"),
    ("audit", "/audit", "Audit", "a"),
)

FIRST_MODULES: Final = (
    "reading/first.js",
    "elements.js",
    "reading/gallery.js",
    "reading/panels.js",
    "reading/store.js",
    "reading/thumbnails.js",
)
"""What the reading room's cells are drawn with; its other scripts come after them."""


def build_environment() -> Environment:
    """Return the template environment: escaping always on, a forgotten variable is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        extensions=[VersionedAssets],
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # keeps the order of keys: classes stand in reporting order
    environment.filters.update({**words.FILTERS, **recipe_words.FILTERS})
    environment.globals.update(CLASS_INFO=CLASS_INFO, CellClass=CellClass, heat=charts.heat, interval=charts.interval)
    environment.globals.update(trend=charts.trend, kappa_mark=charts.kappa_mark)
    environment.globals["READING_KEYS"] = reading_keys.GROUPS
    environment.globals["FIRST_MODULES"] = FIRST_MODULES
    modules = {f"reading/{path.name}" for path in (STATIC / "js" / "reading").glob("*.js")}
    environment.globals["LATER_MODULES"] = sorted(modules - {*FIRST_MODULES})
    return environment


_OF_SCRIPTS: Final = ("application/json", "text/event-stream")
ENVIRONMENT: Final = build_environment()


def navigation(principal: Principal | None) -> list[tuple[str, str, str, str]]:
    """Return the menu of this person: name, address, word, key after ``g``."""
    return [entry for entry in NAV if principal is not None and allowed(entry[0], principal)]


def render(request: Request, template: str, **context: Any) -> str:  # Any: each template has its own variables
    """Render ``template`` with what every page needs beside its own variables."""
    principal: Principal | None = getattr(request.state, "principal", None)
    settings = request.app.state.runtime.settings
    return ENVIRONMENT.get_template(template).render(
        path=request.url.path,
        principal=principal,
        csrf_token=principal.csrf_token if principal else "",
        nav=navigation(principal),
        theme=theme(request),
        demo=bool(settings.demo),
        synthetic=bool(settings.synthetic),
        can=lambda route: allowed(route, principal),
        **context,
    )


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:  # Any: as above
    """Return a whole page or, for `parts.js`, the part that a template names."""
    return HTMLResponse(render(request, template, **context), status_code=status)


def wants_json(request: Request) -> bool:
    """Whether a script asked, rather than a person; a stream of events has no use for a page that asks to sign in."""
    accepted = request.headers.get("accept", "")
    return any(one in accepted for one in _OF_SCRIPTS) or request.url.path.endswith(".json")


def is_partial(request: Request) -> bool:
    """Whether `parts.js` asks for a part of a page."""
    return request.headers.get("X-Part") == "true"
