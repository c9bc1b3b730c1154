"""How long a run of the bench will take, told before it starts and after every section."""

import time
from collections.abc import Sequence

from tests.bench.model.bench import Bench
from tests.bench.model.pace import training_seconds
from tests.bench.model.say import say
from tests.bench.model.section import Section
from tests.bench.model.stages import stage_facts
from tests.bench.model.steps import stored


class Plan:
    """Compares what was expected with what it took so far, and says what is left."""

    def __init__(self, bench: Bench, sections: Sequence[Section]) -> None:
        self._bench = bench
        self._left = {section.name: self._expected(section, sections) for section in sections}
        self._expected_done = self._took = 0.0
        say(f"{len(sections)} sections, about {sum(self._left.values()) / 60:.0f} minutes on 2 cores without a GPU")

    def begin(self, section: Section) -> float:
        """Say what comes; return the time."""
        say(f"== {section.title} (about {self._left[section.name] / 60:.1f} minutes)")
        return time.monotonic()

    def done(self, section: Section, begun: float) -> None:
        """Say what is left, at the pace so far."""
        expected, took = self._left.pop(section.name), time.monotonic() - begun
        self._expected_done, self._took = self._expected_done + expected, self._took + took
        pace = self._took / self._expected_done if self._expected_done > 60 else 1.0
        left = sum(self._left.values()) * max(pace, 0.1)
        say(f"== done in {took / 60:.1f} minutes; {len(self._left)} sections left, about {left / 60:.0f} minutes")

    def _expected(self, section: Section, sections: Sequence[Section]) -> float:
        """Return a section's own seconds and those of the trainings that it is the first to need."""
        if section.found(self._bench) is not None:
            return 0.0
        earlier = {name for one in sections[: sections.index(section)] for name in one.asked(self._bench)}
        seconds = section.seconds[0 if self._bench.quick else 1]
        return seconds + sum(self._training(name) for name in section.asked(self._bench) if name not in earlier)

    def _training(self, name: str) -> float:
        stage = self._bench.stage(name)
        file = self._bench.work / "models" / stage.name / "piece.json"
        if stored(file, stage_facts(stage, self._bench.data)) is not None:
            return 0.0
        return training_seconds(stage)
