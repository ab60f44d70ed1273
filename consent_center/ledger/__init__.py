"""RFC 6962 Merkle log in the C2SP formats: tree, proofs, signed notes, checkpoints, and storage in tiles.

Everything but `log` is pure; `verify` is what an auditor imports.
"""
