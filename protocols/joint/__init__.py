"""Joint generalised linear models: both sides have columns, the brand the labels. README.md specifies."""

from protocols.joint.brand import Brand, BrandResult
from protocols.joint.information import Columns, Errors, Weights, p_values
from protocols.joint.provider import Provider, ProviderResult
from protocols.joint.terms import FAMILIES, Terms, least, padded

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
    "least",
    "p_values",
    "padded",
]
