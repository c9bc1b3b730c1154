"""What ``hematovision-server federate`` prints for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.federation.forecast import DryRunView
from server.federation.recipe import as_chosen
from server.federation.schemas import RunView, SiteCensus, SiteDrift


def print_dry_run(view: DryRunView) -> None:
    """Print what each hospital answered."""
    table = Table("hospital", "node", "would take part", "reason", "cells", "seconds a round")
    for site in view.sites:
        seen = f"last seen {site.last_seen_at:%Y-%m-%d %H:%M} UTC" if site.last_seen_at else "never seen"
        table.add_row(
            site.hospital_name,
            "online" if site.online else seen,
            {True: "yes", False: "no", None: "no answer"}[site.takes_part],
            Text(site.reason),
            "" if site.examples is None else str(site.examples),
            "unknown" if site.round_seconds is None else f"{site.round_seconds:.0f}",
        )
    console = Console()
    console.print(table)
    verdict = "enough" if view.enough else "too few"
    console.print(f"{view.willing} of {len(view.sites)} would take part, {view.plan.min_sites} are needed: {verdict}.")
    if view.total_seconds is not None and view.round_seconds is not None:
        console.print(f"About {view.round_seconds:.0f} s a round, {view.total_seconds:.0f} s for {view.plan.rounds}.")
    else:
        console.print("How long it would take is not known: some hospital has no round with this network yet.")


def print_census(sites: list[SiteCensus]) -> None:
    """Print what each hospital holds, by class and source."""
    table = Table("hospital", "class", "source", "train", "validation", "test", title="What the hospitals hold")
    for site in sites:
        for row in site.census.rows:
            table.add_row(site.hospital_name, row.cls, row.source, str(row.train), str(row.val), str(row.test))
    console = Console()
    console.print(table)
    for site in sites:
        if site.census.unmapped:
            console.print(
                f"{site.hospital_name}: {site.census.unmapped} cells are left out, as their labels are not mapped to a"
                " class; the hospital imports them again with --map NAME=class.",
                highlight=False,
            )


def print_drift(sites: list[SiteDrift], days: int) -> None:
    """Print how far each hospital lies from the others, and what of its recent cells looks unlike the training."""
    recent = f"unlike the training, last {days // 7} weeks"
    table = Table(
        "hospital", "class mix away from the others'", "stain", recent, "cells", title="How far apart they lie"
    )
    for site in sites:
        mix = "—" if site.mix is None else f"{site.mix:.1%}"
        for one in site.recent:
            share = one.share
            told = f"{share.percent:.1f}% ({share.low:.1f}–{share.high:.1f})" if one.cells else "—"
            table.add_row(site.hospital_name, mix, Text(one.stain or "not named"), told, str(one.cells))
        if not site.recent:
            table.add_row(site.hospital_name, mix, "", "no case came in", "")
    Console().print(table)


def print_run(view: RunView) -> None:
    """Print a run: what was asked, its rounds, its candidate."""
    console = Console()
    console.print(f"Run [bold]{view.id}[/bold]: {view.state}" + (f" — {view.problem}" if view.problem else ""))
    parameters = ", ".join(f"{title.lower()} {value:g}" for title, value in view.strategy_parameters.items())
    console.print(f"Strategy: {view.strategy_title} ({parameters})")
    if view.asked is not None:
        console.print(f"Asked: {', '.join(view.asked)}", highlight=False)
    console.print(f"Privacy: {view.privacy.text}", highlight=False)
    if any(site.epsilon is not None for row in view.round_views for site in row.sites):
        spent = {site.hospital_id: site.epsilon for row in view.round_views for site in row.sites if site.epsilon}
        console.print("Spent: " + ", ".join(f"{name} ε {epsilon:g}" for name, epsilon in sorted(spent.items())))
    if view.epsilon is not None:
        console.print(f"Spent of every hospital, by noise at the centre: ε {view.epsilon:.2f}", highlight=False)
    rounds = Table("round", "replied", "seconds", "loss", "accuracy", "MB up", "MB down")
    for row in view.round_views:
        rounds.add_row(
            str(row.round),
            f"{row.replied}/{row.sampled}" + ("" if row.whole or row.ended_at is None else ", does not count"),
            f"{row.seconds:.0f}" if row.seconds is not None else "…",
            _loss(row.loss),
            percent(row.accuracy),
            f"{row.bytes_up / 1e6:.1f}",
            f"{row.bytes_down / 1e6:.1f}",
        )
    if view.after is not None:
        rounds.add_row("end", "", "", _loss(view.after.loss), percent(view.after.accuracy))
    console.print(rounds)
    chosen = ", ".join(f"{name} {value}" for name, value in as_chosen(view.recipe).items() if value is not None)
    console.print(f"Recipe: {chosen}", highlight=False)
    if view.per_site:
        sites = Table("hospital", "accuracy", "macro F1", "held-out cells", title="Candidate")
        for hospital, metrics in sorted(view.per_site.items()):
            sites.add_row(hospital, percent(metrics.accuracy), percent(metrics.macro_f1), str(metrics.n))
        console.print(sites)
    if view.model_version:
        console.print(f"Model [bold]{view.model_version}[/bold] is registered.")


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """``61.4%``; nothing where there is no figure."""
    return "" if value is None else f"{value:.1%}"
