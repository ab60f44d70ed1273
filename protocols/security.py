"""Every security parameter of every protocol, each with its source.

A number that decides how hard an attack is stands here and nowhere else.
"""

from __future__ import annotations

#: Computational security in bits; NIST SP 800-57 part 1 rev. 5, table 2 (128 bits: acceptable beyond 2031).
COMPUTATIONAL_BITS = 128

#: Statistical security in bits; the customary 2^-40 of two-party computation, e.g. Raghuraman and Rindal,
#: eprint 2022/320, section 2.1.
STATISTICAL_BITS = 40
