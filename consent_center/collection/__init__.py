"""Collecting consent: forms, the hosted page behind signed links, the embedded script, double opt-in,
guardians.
"""
