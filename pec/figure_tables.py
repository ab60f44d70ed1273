"""Figures of a job's result as tables for a terminal: what belongs together in one table, a row each."""

from __future__ import annotations

from typing import Any

from pec.cli_common import printable, table

#: Rows of a table inside a result that are printed; `--json` has all.
MOST_ROWS = 25
#: What the columns of lists of lists mean.
COLUMNS_OF = {
    "reach": ("people", "lowest score"),
    "bins": ("chance said", "share found", "people"),
}
#: Figures of the scores' best so many per cent, which share one table.
BEST = {"recall_at": "recall", "lift_at": "lift"}


def figures(result: dict[str, Any], name: str = "", bins: bool = False) -> Any:
    """Single figures in one table, and a table of its own for whatever has figures inside; with `bins` also
    those of a feature report.
    """
    from rich.console import Group
    from rich.text import Text

    special = _special(result, name, bins)
    rest = {k: v for k, v in result.items() if k not in special}
    plain = [(k, _number(v)) for k, v in rest.items() if not _is_nested(v) and not _is_rows(v)]
    parts: list[Any] = [Text(printable(name))] if name and plain else []
    if plain or not name:
        parts.append(table(("figure", "value"), plain))
    parts += [shown for shown in special.values() if shown is not None]
    for key, value in rest.items():
        title = f"{name} · {key}" if name else key
        if _is_rows(value):
            parts.append(_rows(value, title, COLUMNS_OF.get(key)))
        elif _is_nested(value):
            parts.append(figures(value, title) if _is_tree(value) else _grid(value, title))
    return Group(*parts)


def _special(result: dict[str, Any], name: str, bins: bool) -> dict[str, Any]:
    """Tables by the key where they stand; None for what one of them shows too."""
    found: dict[str, Any] = {}
    before = f"{name} · " if name else ""
    if isinstance(result.get("weights"), dict) and isinstance(result.get("errors"), dict):
        found |= {"weights": _weights(result, f"{before}weights"), "errors": None, "p_values": None}
    best = [key for key in BEST if isinstance(result.get(key), dict) and result[key]]
    if best:
        found |= dict.fromkeys(best) | {best[0]: _best(result, best, f"{before}of the best so many per cent")}
    if is_report(result.get("columns")):
        found["columns"] = _columns(result["columns"], f"{before}columns", bins)
    return found


def is_report(columns: Any) -> bool:
    """A feature report's columns with their bins."""
    return isinstance(columns, list) and any(isinstance(c, dict) and "bins" in c for c in columns)


def _weights(result: dict[str, Any], title: str) -> Any:
    weights, errors, chances = result["weights"], result["errors"], result.get("p_values") or {}
    rows: list[dict[str, Any]] = []
    for column, weight in weights.items():
        error = errors.get(column)
        z = weight / error if error else None
        rows.append(
            {"column": column, "weight": weight, "error": error, "z": z, "p-value": chances.get(column)}
        )
    return _grid(rows, title)


def _best(result: dict[str, Any], keys: list[str], title: str) -> Any:
    shares = list(dict.fromkeys(share for key in keys for share in result[key]))
    rows = [{"best %": share, **{BEST[key]: result[key].get(share) for key in keys}} for share in shares]
    return _grid(rows, title)


def _columns(columns: list[dict[str, Any]], title: str, bins: bool) -> Any:
    from rich.console import Group

    rows = [{**column, "bins": len(column["bins"])} for column in columns]
    parts = [_grid(rows, title, most=len(rows) if bins else MOST_ROWS)]
    if bins:
        parts.append(_grid([row for column in columns for row in _bins(column)], "bins", most=10**6))
    return Group(*parts)


def _bins(column: dict[str, Any]) -> list[dict[str, Any]]:
    """Bin 0 is that of missing values where there are any; the column's name stands at its first bin."""
    rows = []
    for number, entry in enumerate(column["bins"]):
        missing = entry["bin"] == 0 and column.get("missing_rate") != 0
        shown = "missing" if missing else entry["bin"]
        rows.append({"column": "" if number else column["column"], **entry, "bin": str(shown)})
    return rows


def _is_rows(value: Any) -> bool:
    """Lists of the same length, a row each, or texts that are long enough to need a line each."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(v, str) for v in value):
        return any(" " in v for v in value)
    return all(isinstance(v, list) for v in value) and len({len(v) for v in value}) == 1


def _rows(value: list[Any], title: str, names: tuple[str, ...] | None) -> Any:
    if isinstance(value[0], str):
        return _grid([{title: text} for text in value], "", most=len(value))
    width = len(value[0])
    heads = names if names and len(names) == width else tuple(map(str, range(1, width + 1)))
    return _grid([dict(zip(heads, row, strict=True)) for row in value], title)


def _is_nested(value: Any) -> bool:
    """A dictionary, or a list of them."""
    if isinstance(value, list):
        return any(isinstance(v, dict) for v in value)
    return isinstance(value, dict) and bool(value)


def _number(value: Any) -> Any:
    """A number stays one, so that it stands on the right."""
    return value if isinstance(value, int | float) else figure(value)


def _is_tree(value: Any) -> bool:
    """A dictionary whose values are of different kinds, so that no grid holds it."""
    if not isinstance(value, dict):
        return False
    nested = [isinstance(v, dict) for v in value.values()]
    rows = any(_is_rows(v) for v in value.values())
    return rows or not all(nested) or any(_is_nested(w) for v in value.values() for w in v.values())


def _grid(value: dict[str, Any] | list[Any], title: str, most: int = MOST_ROWS) -> Any:
    """Entries of the same form, a row each."""
    from rich.console import Group
    from rich.text import Text

    if isinstance(value, dict):
        rows = [{"": name, **entry} for name, entry in value.items()]
    else:
        rows = [entry if isinstance(entry, dict) else {"value": entry} for entry in value]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(rows) > most:
        title += f" (the first {most} of {len(rows)}; all with --json)"
    cells = [[_number(row.get(name)) for name in columns] for row in rows[:most]]
    shown = table(columns, cells)
    return Group(Text(printable(title)), shown) if title else shown


def figure(value: Any) -> Any:
    """Nested figures in one cell, with as many digits as a person reads."""
    if isinstance(value, dict):
        return ", ".join(f"{k}: {figure(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(str(figure(v)) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else value
