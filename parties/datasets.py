"""A registered data set: which file, who its rows are, and which data category each column has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from parties import documents
from parties.errors import NodeError

ID_KINDS = ("phone", "email", "device", "opaque")
#: Most identifiers that a data set may have.
MAX_IDS = 8


def rounded(people: int) -> int:
    """The number with its first two digits and zeros for the rest: never more than it is."""
    step: int = 10 ** max(0, len(str(people)) - 2)
    return people // step * step


@dataclass(frozen=True)
class Dataset:
    """A registered data set: a file, the columns that identify people, and the data category of each column.

    A column without a category is covered by no consent, and can't be used. `further_ids`: (column, kind) of
    more identifiers; the order is that in which a match is looked for. `duplicates`: what rows of a person
    beyond the first are: left out ("first"), further rows of that person in its own organisation's results
    ("all"), or an error ("refuse"). `nulls`: rows without any identifier are left out ("skip") or an error
    ("refuse").

    `shown`: a brand that has an agreement with this node may see the name, the kinds of identifiers, and the
    columns that the agreement lets it use (parties.catalogue). `people`: what is told of its size then, a
    number that the operator declares, with two significant digits at most; 0: nothing.
    """

    name: str
    path: str
    id_column: str
    id_kind: str
    categories: dict[str, str] = field(default_factory=dict)
    further_ids: tuple[tuple[str, str], ...] = ()
    duplicates: str = "first"
    nulls: str = "skip"
    shown: bool = False
    people: int = 0

    def __post_init__(self) -> None:
        documents.check_name(self.name, "the data set's name")
        for _, kind in self.identifiers:
            if kind not in ID_KINDS:
                raise NodeError("document.type", f"id kind {kind!r} is none of {', '.join(ID_KINDS)}")
        columns = [column for column, _ in self.identifiers]
        texts = (self.path, *columns, *self.categories, *self.categories.values())
        if not all(isinstance(t, str) and t for t in texts):
            raise NodeError("document.type", "path, id column and categories of a data set must be text")
        if len(set(columns)) != len(columns) or len(columns) > MAX_IDS:
            raise NodeError("document.type", f"id columns: each once, {MAX_IDS} at the most")
        if self.duplicates not in ("first", "all", "refuse") or self.nulls not in ("skip", "refuse"):
            raise NodeError("document.type", "duplicates is first, all or refuse; nulls is skip or refuse")
        if not isinstance(self.shown, bool) or type(self.people) is not int or self.people < 0:
            raise NodeError("document.type", "shown is yes or no, people a number from 0")
        if self.people != rounded(self.people):
            # A declared number that is exact could say that one person has come or gone.
            raise NodeError("document.type", f"people: {self.people} has more than two significant digits")

    @property
    def identifiers(self) -> tuple[tuple[str, str], ...]:
        """(column, kind) of every identifier, in the order in which a match is looked for."""
        return ((self.id_column, self.id_kind), *self.further_ids)

    @property
    def reading(self) -> dict[str, Any]:
        """What decides which rows and columns a job may read of it; a job that has begun holds to it."""
        return {k: v for k, v in self.to_json().items() if k not in ("shown", "people")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Dataset:
        known = {f.name for f in fields(cls)}
        for name in value:
            if name not in known:
                raise NodeError("document.unknown_field", f"Dataset.{name}")
        for name in ("name", "path", "id_column", "id_kind"):
            if not isinstance(value.get(name), str):
                raise NodeError("document.missing_field", f"Dataset.{name} is missing or no text")
        if not isinstance(value.get("categories", {}), dict):
            raise NodeError("document.type", "Dataset.categories is no object")
        further = value.get("further_ids", ())
        if not isinstance(further, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
            for pair in further
        ):
            raise NodeError("document.type", "Dataset.further_ids is no list of [column, kind]")
        return cls(**{**value, "further_ids": tuple((c, k) for c, k in further)})

    def to_json(self) -> dict[str, Any]:
        """As JSON; what has its usual value is left out, so that older files stay equal."""
        made = {**asdict(self), "further_ids": [list(pair) for pair in self.further_ids]}
        usual_values = (("duplicates", "first"), ("nulls", "skip"), ("shown", False), ("people", 0))
        for name, usual in (("further_ids", []), *usual_values):
            if made[name] == usual:
                del made[name]
        return made
