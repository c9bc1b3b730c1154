"""A browser's part without a browser: cookies, forms and their tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from fastapi.testclient import TestClient

from tests.factories import PASSWORD


@dataclass
class Browser:
    """A test client that fills the token in as a form does."""

    client: TestClient
    token: str = ""

    def sign_in(self, username: str, password: str = PASSWORD) -> "Browser":
        """Sign in through the form."""
        form = self.client.get("/login").text
        answer = self.client.post(
            "/login", data={"csrf_token": hidden(form, "csrf_token"), "username": username, "password": password}
        )
        assert answer.status_code == 303, answer.text
        self.token = hidden(self.client.get("/models").text, "csrf_token")
        return self

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """Open an address."""
        return self.client.get(path, headers=headers)

    def post(self, path: str, fields: Mapping[str, str | list[str]] | None = None, **headers: str) -> httpx2.Response:
        """Submit a form."""
        return self.client.post(path, data={"csrf_token": self.token, **(fields or {})}, headers=headers)


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, f"no field {name}"
    return found[1]
