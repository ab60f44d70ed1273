"""What a provider shows to a brand under an agreement: data sets, columns, and what each may be used for.

Nothing is shown that the provider's operator has not declared: a data set only with `shown`, its size only as
the number that was declared with it, of its columns those that the agreement lets the brand use. No file is
opened for it. The brand could find the same by proposing jobs, one column at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from parties import documents
from parties.datasets import Dataset
from parties.documents import Agreement, Document
from parties.errors import NodeError
from parties.home import Home

#: Most bytes of column names and categories in one answer; what is beyond is counted in `left_out`.
MOST_BYTES = 300_000

ALL = ("*",)


@dataclass(frozen=True, kw_only=True)
class Column(Document):
    """`uses`: model (may enter a model or a feature report), tag (may be handed out), sum (may be summed)."""

    name: str
    category: str
    uses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Offer(Document):
    """One data set. `identifiers`: kinds, in the order of a match. `people`: as declared, 0 if it was not.
    `left_out`: columns beyond `MOST_BYTES`.
    """

    name: str
    identifiers: tuple[str, ...]
    people: int
    columns: tuple[Column, ...]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Catalogue(Document):
    agreement_id: str
    provider: str
    datasets: tuple[Offer, ...]


def offered(home: Home, id: str, brand: str) -> Catalogue:
    """What this node, as the provider of an agreement in force, shows to its brand.

    Raises `agreement.unknown` for an agreement of others, `agreement.ended`, `agreement.expired`.
    """
    try:
        agreement = home.agreement(id)
    except NodeError:
        agreement = None
    if agreement is None or (agreement.brand, agreement.provider) != (brand, home.party):
        # The same words for both: a peer learns nothing of the agreements of others.
        what = f"{home.party} has no agreement {id[:64]!r} with {brand} as its brand"
        raise NodeError("agreement.unknown", what, "ask for one of this brand's agreements", share=True)
    home.endings.check(agreement.id)
    documents.check_time(agreement, documents.now(), f"agreement {agreement.id}", expired="agreement.expired")
    room = MOST_BYTES
    offers = []
    for dataset in home.datasets():
        if dataset.shown:
            offer, room = _offer(dataset, agreement, room)
            offers.append(offer)
    return Catalogue(agreement_id=agreement.id, provider=home.party, datasets=tuple(offers))


def _offer(dataset: Dataset, agreement: Agreement, room: int) -> tuple[Offer, int]:
    columns, left_out = [], 0
    for name, category in sorted(dataset.categories.items()):
        uses = _uses(name, agreement) if category in agreement.categories else ()
        if not uses:
            continue
        size = len(name.encode()) + len(category.encode()) + 60
        if size > room:
            left_out += 1
            continue
        room -= size
        columns.append(Column(name=name, category=category, uses=uses))
    kinds = tuple(kind for _, kind in dataset.identifiers)
    offer = Offer(
        name=dataset.name,
        identifiers=kinds,
        people=dataset.people,
        columns=tuple(columns),
        left_out=left_out,
    )
    return offer, room


def _uses(column: str, agreement: Agreement) -> tuple[str, ...]:
    found = []
    for use, allowed in (("model", agreement.columns), ("tag", agreement.tags)):
        if allowed == ALL or column in allowed:
            found.append(use)
    if any(text.startswith(f"provider.{column}:") for text in agreement.sums):
        found.append("sum")
    return tuple(found)


def seen(home: Home, id: str) -> Catalogue:
    """What an agreement's provider shows: asked of it by the brand, or of this very directory by itself."""
    agreement = home.agreement(id)
    if agreement.provider == home.party:
        return offered(home, id, agreement.brand)
    from parties.transport import node_pb2  # it loads gRPC
    from parties.transport.client import Connection

    peer, keys = home.peer(agreement.provider), home.identity
    with Connection(keys, peer.party, peer.address, peer.certificate, peer.server_name) as line:
        reply = line.call(line.peer.Catalogue, node_pb2.CatalogueRequest(agreement_id=id))
    found = Catalogue.from_json(documents.parse(reply.catalogue, "catalogue"))
    if (found.agreement_id, found.provider) != (id, peer.party):
        raise NodeError("document.type", f"{peer.party} answered for another agreement")
    return found
