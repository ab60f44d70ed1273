"""Joint generalised linear models: both sides have columns, the brand the labels. README.md specifies."""

from protocols.joint.brand import Brand, BrandResult
from protocols.joint.information import Columns, Errors, Weights, p_values
from protocols.joint.provider import Provider, ProviderResult
from protocols.joint.terms import FAMILIES, Terms, padded

__all__ = [
    "FAMILIES",
    "Brand",
    "BrandResult",
    "Columns",
    "Errors",
    "Provider",
    "ProviderResult",
    "Terms",
    "Weights",
    "p_values",
    "padded",
]
