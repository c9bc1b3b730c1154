"""The stages that serving and ``--once`` share: hospitals join, learn together, analyse and send."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.demo.loop import Loop
from deploy.demo.people import Person
from deploy.demo.result import FederationResult, FlagCheck
from deploy.demo.waiting import wait_for
from shared.contracts.errors import SignatureInvalidError


def join_hospitals(loop: Loop, coordinator: Person, data: Path) -> None:
    """Enrol each hospital with its kit, compare fingerprints on the nodes page, approve, import."""
    platform = loop.platform
    with loop.stage("enrolment"):
        for hospital in loop.hospitals:
            kit = platform.kit(hospital.id, hospital.data.name)
            node_id, fingerprint = hospital.init(kit)
            # What the hospital reads out on the telephone must stand on the coordinator's page.
            if fingerprint not in coordinator.page("/nodes"):
                raise SignatureInvalidError(
                    f"The fingerprint of {hospital.data.name} is not the one on the nodes page."
                )
            coordinator.submit(f"/nodes/{node_id}/approve")
        platform.add_person("hospital_it", hospital_id=loop.hospitals[0].id)
    with loop.stage("import"), ThreadPoolExecutor(max_workers=2) as pool:
        for hospital, said in zip(
            loop.hospitals, pool.map(lambda h: h.take_in(data, platform.work / "material"), loop.hospitals), strict=True
        ):
            skipped = f", {len(said.skipped)} skipped" if said.skipped else ""
            platform.say(f"{hospital.data.name}: {said.imported} imported{skipped} ({hospital.data.site})")


def start_nodes(loop: Loop, coordinator: Person) -> None:
    """Start each hospital's node and wait until the nodes page shows all of it running."""
    platform = loop.platform
    with loop.stage("nodes"):
        for hospital in loop.hospitals:
            argv = ("client_node.cli", "run", "--home", str(hospital.home))
            platform.supervisor.start(platform.python(hospital.id, *argv))

        def running() -> bool:
            views = {node["hospital_id"]: node for node in coordinator.json("/nodes.json")}
            return all(
                (node := views.get(hospital.id))
                and node["online"]
                and {"analyser", "trainer", "supernode"} <= {n for n, s in node["processes"].items() if s == "running"}
                for hospital in loop.hospitals
            )

        wait_for(running, what="The start of every node", timeout=180, alive=platform.check)
        census = [hospital.data.name for hospital in loop.hospitals]

        def counted() -> bool:
            page = coordinator.page("/rounds")
            return all(name in page for name in census)

        wait_for(counted, what="The census of every hospital", timeout=60, alive=platform.check)


def prepare_cases(loop: Loop, coordinator: Person, *, rounds: int) -> tuple[FederationResult, list[FlagCheck]]:
    """Learn together, promote and install the model, analyse the pseudo-smears and send the flagged ones."""
    with loop.stage("federation"):
        federation = loop.federate(coordinator, rounds=rounds)
    for site, figures in federation.per_site.items():
        loop.platform.say(f"{site}: accuracy {figures.accuracy:.3f} on {figures.n} held-out cells")
    with loop.stage("promotion"):
        loop.promote(coordinator, federation.model.version)
    with loop.stage("analysis"):
        checks = loop.analyse()
    return federation, checks
