"""Align, suite `vole`: an oblivious PRF from VOLE and a key-value store (RR22). README.md specifies it."""
