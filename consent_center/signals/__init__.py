"""Signals of other systems, read at collection: IAB TCF and GPP strings, Global Privacy Control.

`tcf`, `gpp`, `us_layouts` decode (no I/O, no clock); `signal` puts them under one roof; `mapping` says what
they mean for this center's purposes; `events` makes consent events of it; `store` keeps the table in the
ledger.
"""
