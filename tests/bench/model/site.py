"""A hospital of the bench: the product's own trial fits a model's calibration on its validation groups."""

import shutil
from pathlib import Path
from typing import Final

from client_node.analysis.model import read_card
from client_node.home import NodeHome
from client_node.models.trial import run_trial
from client_node.policy import write_default_policy
from tests.bench.model.steps import Json, Steps

LEVEL: Final = 0.99
"""Share of cells whose true class the sets shall hold, as the goals ask."""
_TRIAL: Final = 2
"""Raise it when the trial would fit otherwise."""
_ALL: Final = 'datasets = ["*"]'
_COVERAGE: Final = "coverage = 0.95"


def fitted(steps: Steps, home: Path, model: Path, sources: tuple[str, ...], facts: Json) -> Path:
    """Return a copy of ``model`` with the ``adapter.json`` of a hospital that has the cells of ``sources``.

    The hospital's home is made beside the bench's ``home``, whose images it shares.
    """
    site, version = hospital(home, sources), read_card(model).version
    folder = site.model(version)
    want = {"model": facts, "sources": list(sources), "level": LEVEL, "trial": _TRIAL}

    def tried() -> Json:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model, folder)
        return run_trial(site, version, None).model_dump(mode="json")

    steps.run(site.path / f"trial-{version}.json", want, tried, again=not folder.is_dir())
    return folder


def hospital(home: Path, sources: tuple[str, ...]) -> NodeHome:
    """Return the home of a hospital that has the cells of ``sources`` alone: its policy leaves out the others."""
    site = NodeHome(home.with_name(f"{home.name}-sites") / "-".join(sources))
    if not site.policy_file.is_file():
        shutil.rmtree(site.path, ignore_errors=True)
        site.path.mkdir(parents=True)
        for name in ("catalogue.sqlite", "images"):
            (site.path / name).symlink_to(home.resolve() / name)
        write_default_policy(site, release_key="none")
        text = site.policy_file.read_text()
        names = ", ".join(f'"{source}"' for source in sources)
        for old, new in ((_ALL, f"datasets = [{names}]"), (_COVERAGE, f"coverage = {LEVEL}")):
            if old not in text:
                raise AssertionError(f"the default policy has no line {old}")
            text = text.replace(old, new)
        site.policy_file.write_text(text)
    return site
