"""Linear query: Q^T y from the brand's encrypted y and the provider's Q. README.md is the specification."""

from protocols.linear_query.brand import Brand
from protocols.linear_query.parameters import Plan, Query, plan
from protocols.linear_query.provider import Provider
from protocols.linear_query.transforms import Transforms

__all__ = ["Brand", "Plan", "Provider", "Query", "Transforms", "plan"]
