"""Gradient-boosted trees over columns of both sides. README.md is the specification."""

from protocols.boost.bins import Table, cuts, ordered
from protocols.boost.brand import Brand
from protocols.boost.model import BrandResult, ProviderResult
from protocols.boost.people import Labels
from protocols.boost.provider import Provider
from protocols.boost.terms import Learning, Terms

__all__ = [
    "Brand",
    "BrandResult",
    "Labels",
    "Learning",
    "Provider",
    "ProviderResult",
    "Table",
    "Terms",
    "cuts",
    "ordered",
]
