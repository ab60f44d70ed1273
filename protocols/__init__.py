"""The cryptography, as machines without I/O: bytes in, bytes out. Each folder's README is its specification."""
