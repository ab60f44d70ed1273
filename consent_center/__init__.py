"""Consent center: who agreed to what, decided for millions at once, and provable afterwards.

Others use `consent_center.client` (open a center), `.model` (plain data), `.identifiers` (normalisation) and
`.ledger.verify` (pure verification). The README is the specification of every stored and signed format.
"""
