"""The cryptography, as machines without I/O: bytes in, bytes out. A folder's README is its specification."""
