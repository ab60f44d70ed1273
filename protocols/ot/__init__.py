"""Oblivious transfer: base OTs on ristretto255 and OT extension. `README.md` is the specification."""
