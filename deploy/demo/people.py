"""People at the portal: each logs in and uses its pages and forms, over HTTP like a browser."""

import re
import secrets
from html.parser import HTMLParser
from types import TracebackType
from typing import Any, Self

import httpx

from shared.contracts.errors import ForbiddenError, HematovisionError

CASE_ID = re.compile(r"HV-[0-9A-HJKMNP-TV-Z]{8}")


class _Forms(HTMLParser):
    """Collects the hidden inputs of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden" and (name := given.get("name")):
            self.values.setdefault(name, given.get("value") or "")


class Person:
    """Somebody signed in at the portal."""

    def __init__(self, base_url: str, *, username: str, password: str) -> None:
        self.username = username
        self._password = password
        self._http = httpx.Client(base_url=base_url, follow_redirects=True, timeout=60)
        form = self._hidden("/login")
        page = self._post("/login", {**form, "username": username, "password": password})
        if "/login" in str(page.url):
            raise ForbiddenError(f"The portal did not let {username} in.")
        self._csrf = self._hidden("/")["csrf_token"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def page(self, path: str) -> str:
        """Return a page's HTML."""
        return self._get(path).text

    def json(self, path: str) -> Any:  # Any: parsed JSON
        """Return what a JSON address says."""
        return self._get(path).json()

    def bytes(self, path: str) -> bytes:
        """Return a file."""
        return self._get(path).content

    def submit(self, path: str, **fields: str | list[str]) -> httpx.Response:
        """Submit a form with this session's CSRF token."""
        return self._post(path, {"csrf_token": self._csrf, **fields})

    def sign(self, case_id: str, *, impression: str) -> None:
        """Sign a case out, with the password again and all flags agreed."""
        form = self._hidden(f"/cases/{case_id}")
        kept = {name: form.get(name, "") for name in ("case_version", "idempotency_key")}
        flags = self.json(f"/cases/{case_id}.json")["flags"]
        said = {
            "flag": [one["id"] for one in flags],
            "shown": [one["shown"] for one in flags],
            "reason": [""] * len(flags),
        }
        self.submit(f"/cases/{case_id}/sign", password=self._password, impression=impression, **kept, **said)

    def reclassify(self, case_id: str, *, cell_id: str, label: str) -> Any:  # Any: parsed JSON
        """Change one cell's class."""
        key = secrets.token_hex(8)
        answer = self.submit(f"/cases/{case_id}/cells", cell_id=[cell_id], label=label, idempotency_key=key)
        return answer.json()

    def look_through(self, case_id: str) -> None:
        """Accept what the model doubted as it named it, and have every class on the screen: signing asks for both."""
        cells = self.json(f"/cases/{case_id}.json")["cells"]
        doubtful = [cell["cell_id"] for cell in cells if cell["doubtful"]]
        if doubtful:
            self.submit(f"/cases/{case_id}/accept", cell_id=doubtful, idempotency_key=secrets.token_hex(8))
        self.submit(f"/cases/{case_id}/seen", group=sorted({cell["current_class"] for cell in cells}))

    def _hidden(self, path: str) -> dict[str, str]:
        forms = _Forms()
        forms.feed(self.page(path))
        return forms.values

    def _get(self, path: str) -> httpx.Response:
        return _checked(self._http.get(path))

    def _post(self, path: str, fields: dict[str, str | list[str]] | dict[str, str]) -> httpx.Response:
        return _checked(self._http.post(path, data=fields, headers={"Accept": "application/json, text/html"}))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise HematovisionError(f"The portal answered {answer.status_code} to {answer.request.url.path}.")
    return answer
