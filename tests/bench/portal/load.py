"""A reader as locust plays them: signs in, takes cases from the worklist, reads and signs them, at a person's pace.

Run by `readers`, never imported: locust patches the standard library as it is imported. The environment names a plan
(JSON: reader → case ids, the password, the room's scripts) and where the times go.
"""

import json
import os
import random
import re
import time
import uuid
from html import unescape
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import gevent.pool
from locust import FastHttpUser, events, task
from locust.exception import StopUser

PLAN = json.loads(Path(os.environ["HV_PLAN"]).read_text())
TIMES: list[tuple[str, float, str]] = []
"""Of every request: name, milliseconds, what went wrong."""
CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "immature_granulocyte")
AT_ONCE = 6
"""Requests that a browser sends to one server at a time."""


def _keep(name: str, response_time: float, exception: Exception | None, **_: object) -> None:
    TIMES.append((name, response_time, repr(exception)[:300] if exception else ""))


def _write(**_: object) -> None:
    Path(os.environ["HV_TIMES"]).write_text(json.dumps(TIMES))


events.request.add_listener(_keep)  # type: ignore[no-untyped-call]  # locust has no annotations here
events.quitting.add_listener(_write)  # type: ignore[no-untyped-call]


class Reader(FastHttpUser):
    """One person with one browser.

    The fast user, as it takes a fifth of the computing: in the portal's life readers' browsers are on other machines.
    """

    numbers: ClassVar = count()

    def on_start(self) -> None:
        """Sign in through the form."""
        self.name = f"reader-{next(self.numbers)}"
        self.cases = iter(PLAN["cases"][self.name])
        self.kept: set[str] = set()
        self.page("/login", "page: sign-in form")
        token = hidden(self.text, "csrf_token")
        form = {"csrf_token": token, "username": self.name, "password": PLAN["password"]}
        self.send("/login", form, "post: sign in", {})
        self.page("/worklist", "page: worklist")
        self.token = found(r'name="csrf-token" content="([^"]+)"', self.text)

    @task
    def read(self) -> None:
        """Take the next case, correct some cells, and sign it."""
        case = next(self.cases, None)
        if case is None:
            raise StopUser
        self.page("/worklist", "page: worklist")
        self.think(1, 3)
        self.open(case)
        self.post(case, "claim", {})
        room = self.open(case)
        cells = room["case"]["cells"]
        for number, cell in enumerate(random.sample(cells, min(len(cells), 14))):
            self.think(0.6, 2.4)
            label = random.choice(CLASSES)
            self.post(case, "cells", {"cell_id": cell["cell_id"], "label": label, "idempotency_key": str(uuid.uuid4())})
            if number % 6 == 5:
                self.post(case, "undo", {"idempotency_key": str(uuid.uuid4())})
            if number % 5 == 4:
                self.post(case, "seen", {"group": list(CLASSES)})
                self.post(case, "heartbeat", {})
        self.sign(case)

    def sign(self, case: str) -> None:
        """Settle what is left, look at every class, and sign."""
        view = self.get(f"/cases/{case}.json", "page: case as data").json()
        doubtful = [cell["cell_id"] for cell in view["cells"] if cell["doubtful"]]
        if doubtful:
            self.post(case, "accept", {"cell_id": doubtful, "idempotency_key": str(uuid.uuid4())})
        groups = sorted({cell["current_class"] for cell in view["cells"]})
        self.post(case, "seen", {"group": groups})
        self.think(1, 4)
        self.post(case, "impression", {"impression": "Reactive picture."})
        now = self.get(f"/cases/{case}.json", "page: case as data").json()
        form = {"case_version": now["version"], "impression": "Reactive picture.", "password": PLAN["password"]}
        form["flag"] = [flag["id"] for flag in now["flags"]]
        form["shown"] = [flag["shown"] for flag in now["flags"]]
        form["reason"] = [""] * len(now["flags"])
        form["idempotency_key"] = str(uuid.uuid4())
        answer = self.post(case, "sign", form)
        if answer.ok:
            self.page(answer.json()["location"], "page: report")

    def open(self, case: str) -> Any:  # Any: the room's JSON
        """Open the room as a browser does: page, scripts it has not kept, images of all cells, tiles of a field."""
        self.page(f"/cases/{case}", "page: case")
        room = json.loads(found(r'<script type="application/json" id="room-data">(.*?)</script>', self.text))
        pool = gevent.pool.Pool(AT_ONCE)
        names = [cell["blob"] for cell in room["case"]["cells"]]
        for part in (names[:14], *(names[at : at + 48] for at in range(14, len(names), 48))):
            address = f"/cases/{case}/images?{urlencode({'name': part}, doseq=True)}"
            if address not in self.kept:
                self.kept.add(address)
                pool.spawn(self.get, address, "image: cells")
        for field in room["case"]["fields"][:1]:
            level = (max(field["width"], field["height"]) - 1).bit_length()
            pool.spawn(self.get, f"/cases/{case}/fields/{field['index']}/tiles/{level}_0_0.jpg", "image: tile")
        pool.join()
        return room

    def page(self, address: str, name: str) -> None:
        """Open a page with the scripts and styles that the browser does not have yet."""
        self.text = self.get(address, name).text
        statics = re.findall(r'(?:src|href)="(/static/[^"]+)"', self.text)
        pool = gevent.pool.Pool(AT_ONCE)
        base = found(r'"(/static[^"]*)/js/app\.js"', self.text)
        modules = [f"{base}{module}" for module in PLAN["scripts"]] if "/js/reading/" in self.text else []
        for static in dict.fromkeys([*statics, *modules]):
            pool.spawn(self.static, static)
        pool.join()

    def static(self, address: str) -> None:
        """Fetch a script or style; the browser keeps it as long as its address stands."""
        if address not in self.kept:
            self.kept.add(address)
            self.client.get(address, name="static")

    def get(self, address: str, name: str) -> Any:  # Any: locust's response
        """Get without following to other pages."""
        return self.client.get(address, name=name, allow_redirects=False)

    def post(self, case: str, act: str, fields: dict[str, Any]) -> Any:  # Any: form values; locust's response
        """Post as the page's scripts do."""
        headers = {"X-CSRF-Token": self.token, "Accept": "application/json"}
        return self.send(f"/cases/{case}/{act}", fields, f"post: {act}", headers)

    def send(self, address: str, fields: dict[str, Any], name: str, headers: dict[str, str]) -> Any:  # Any: as above
        """Post a form."""
        headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode(fields, doseq=True)
        return self.client.post(address, form, name=name, headers=headers, allow_redirects=False)

    def think(self, least: float, longest: float) -> None:
        """Do nothing, as somebody who looks."""
        time.sleep(random.uniform(least, longest))


def hidden(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    return unescape(found(rf'name="{name}" value="([^"]*)"', page))


def found(pattern: str, page: str) -> str:
    """Return what stands in the pattern's brackets.

    Raises:
        ValueError: the page does not hold it.
    """
    match = re.search(pattern, page, re.DOTALL)
    if match is None:
        raise ValueError(f"The page holds no {pattern}.")
    return match[1]
