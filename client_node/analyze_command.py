"""The work of `analyze`: by the resident analyser where one runs, else here; then the outbox."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node import ipc
from client_node.cases.context import read_context
from client_node.cases.intake import QueuedCase, send_flagged
from client_node.home import NodeHome
from client_node.policy import load_policy
from client_node.status import agent_runs
from shared.contracts.analysis import AnalysisOutput
from shared.contracts.case import Priority
from shared.contracts.errors import ServiceUnavailableError
from shared.progress import progress

_SECONDS = 3600.0


class AnalyzeOutput(BaseModel):
    """The JSON of `analyze`: the analysis, and with ``--send`` which smears became cases."""

    model_config = ConfigDict(frozen=True)

    output: AnalysisOutput
    sent: tuple[QueuedCase, ...] | None

    def document(self) -> dict[str, Any]:  # Any: JSON
        """Return ``smears``, and ``sent`` where sending was asked for."""
        document = self.output.model_dump(mode="json", by_alias=True)
        if self.sent is not None:
            document["sent"] = [case.model_dump(mode="json") for case in self.sent]
        return document

    def text(self) -> str:
        """Return what a person reads."""
        lines = []
        for smear in self.output.smears:
            marks = " (pseudo-smear)" if smear.pseudo else ""
            lines.append(f"{smear.id}{marks}: {len(smear.cells)} cells, {len(smear.fields)} fields")
            lines += [
                f"  {cls.value}: {share.count} ({share.percent:.1f} %)" for cls, share in smear.differential.items()
            ]
            lines += [f"  flag {flag.id} [{flag.severity.value}]: {flag.evidence.text}" for flag in smear.flags]
            lines += [f"  not read: {warning}" for warning in smear.quality.warnings]
        for case in self.sent or ():
            lines.append(f"{case.smear_id} {'leaves' if case.new else 'had left before'} as {case.case_id}")
        if self.sent == ():
            lines.append("No smear is flagged by a morphological rule: nothing is sent.")
        return "\n".join(lines)


def analyze_and_send(
    home: NodeHome, paths: list[Path], *, send: bool, context_file: Path | None, priority: Priority | None
) -> AnalyzeOutput:
    """Analyse, and put flagged smears into the outbox if asked to; the agent sends them."""
    context = read_context(context_file)  # a wrong file shows before the work, not after it
    if send:
        load_policy(home).check_send()
    output = _analyze(home, [path.resolve() for path in paths], stat=priority is Priority.STAT)
    sent = tuple(send_flagged(home, output.smears, context, priority=priority)) if send else None
    return AnalyzeOutput(output=output, sent=sent)


def _analyze(home: NodeHome, paths: list[Path], *, stat: bool) -> AnalysisOutput:
    socket = ipc.socket_path(home.path, "analyser")
    if agent_runs(home) and socket.exists():
        header = {"op": "analyze", "paths": [str(path) for path in paths], "options": {"stat": stat}}
        with progress("Analysing"):
            answer, _ = ipc.call(socket, header, timeout=_SECONDS)
        try:
            return AnalysisOutput.model_validate(answer["output"])
        except (KeyError, ValidationError):
            raise ServiceUnavailableError("The analyser is of another version: restart the node.") from None
    # The model libraries take a second to load, and only a node that does not run needs them here.
    from client_node.analysis.service import Analyser, Options

    with progress("Analysing") as reporter:
        return Analyser(home.path).analyze(paths, options=Options(stat=stat), progress=reporter)
