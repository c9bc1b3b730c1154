"""Figures for tables that are also pictures."""

from shared.statistics import clopper_pearson


def heat(value: float | None) -> str:
    """Return the CSS class of a heat cell: ten steps from 0 to 1, none where there is no figure."""
    return "" if value is None else f"heat-{min(9, max(0, int(value * 10)))}"


def interval(fraction: float | None, total: int | None, digits: int = 1) -> str:
    """Return the exact 95 % interval of a share of ``total``, in percent: ``91.2–96.4``."""
    if fraction is None or not total:
        return ""
    low, high = clopper_pearson(round(fraction * total), total)
    return f"{low:.{digits}f}–{high:.{digits}f}"
