"""Consent records and receipts by ISO/IEC TS 27560, as JSON-LD with terms of the W3C Data Privacy Vocabulary.

`make` reads one event from the database, `record` writes it in DPV's terms, `verify` checks a receipt with
nothing but the file and the center's key.
"""
