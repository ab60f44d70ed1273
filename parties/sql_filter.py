"""A brand-side filter: one SQL expression over columns in memory, on a locked-down DuckDB.

The expression comes from whoever asks for the job, so it is treated as hostile: it must parse as exactly one
expression of columns, constants, operators and plain functions. Sub-queries (which could name another table
or a file), aggregates, window and table functions are refused from the parse tree, and the connection that
evaluates it can reach no file, network, extension or Python object, whatever the parser let through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from parties.errors import PartyError

_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "2GB",
    "threads": "2",
    "lock_configuration": "true",
}

#: Parse tree classes that an expression may consist of; everything else (SUBQUERY, WINDOW, STAR, LAMBDA,
#: PARAMETER, POSITIONAL_REFERENCE …) is refused.
_ALLOWED = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
    "OPERATOR", "TYPE",
}  # fmt: skip

_MAX_LENGTH = 4000


def columns_of(expression: str) -> list[str]:
    """Names of the columns that the expression mentions, as written; `rows.filter` if it is not allowed."""
    if not expression.strip() or len(expression) > _MAX_LENGTH:
        raise PartyError("rows.filter", f"the filter is empty or longer than {_MAX_LENGTH} characters")
    import duckdb  # most processes never filter, and it takes a while to load

    with duckdb.connect(":memory:", config=_LOCKED) as connection:
        row = connection.execute("SELECT json_serialize_sql($1)", [f"SELECT ({expression}\n)"]).fetchone()
        tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if tree.get("error"):
        raise PartyError(
            "rows.filter", f"{expression!r} is no SQL expression: {tree.get('error_message', '')}"
        )
    statements = tree["statements"]
    node = statements[0]["node"]
    extras = ("where_clause", "having", "qualify", "sample")
    plain = (
        len(statements) == 1
        and node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not any(node.get(extra) for extra in extras)
        and not node["group_expressions"]
        and not node["modifiers"]
        and not node["cte_map"]["map"]
    )
    if not plain:
        # "1=1) FROM other WHERE (1=1" and the like: more than one expression.
        raise PartyError("rows.filter", f"{expression!r} is more than one expression")
    names = []
    for part in _parts(node["select_list"][0]):
        if part["class"] not in _ALLOWED:
            raise PartyError(
                "rows.filter", f"{part['class'].lower()} is not allowed in a filter: {expression!r}"
            )
        if part["class"] == "COLUMN_REF":
            if len(part["column_names"]) != 1:
                raise PartyError(
                    "rows.filter", f"write a plain column name, not {'.'.join(part['column_names'])}"
                )
            names.append(part["column_names"][0])
    return list(dict.fromkeys(names))


def evaluate(expression: str, columns: Mapping[str, pa.Array], count: int) -> np.ndarray:
    """bool[count]: where the expression holds over these columns of that length. NULL counts as false."""
    import duckdb

    columns_of(expression)
    number = "row number"
    while number in columns:
        number += "_"
    table = pa.table({**columns, number: np.arange(count)})
    try:
        with duckdb.connect(":memory:", config=_LOCKED) as connection:
            relation = connection.from_arrow(table)
            condition = duckdb.SQLExpression(f"({expression}\n)").cast("BOOLEAN")
            chosen = relation.filter(condition).select(duckdb.ColumnExpression(number)).fetchnumpy()[number]
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise PartyError("rows.filter", f"{expression!r}: {first}") from error
    result = np.zeros(count, dtype=bool)
    result[np.asarray(chosen, dtype=np.int64)] = True
    return result


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every expression in a parse tree; a sub-query's query node has no class and is met as its SUBQUERY."""
    if isinstance(node, dict):
        if isinstance(node.get("class"), str):
            yield node
        for value in node.values():
            yield from _parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value)
