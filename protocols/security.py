"""Every security parameter of every protocol, each with its source.

A number that decides how hard an attack is stands here and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

#: Computational security in bits; NIST SP 800-57 part 1 rev. 5, table 2 (128 bits: acceptable beyond 2031).
COMPUTATIONAL_BITS = 128

#: Statistical security in bits; the customary 2^-40 of two-party computation, e.g. Raghuraman and Rindal,
#: eprint 2022/320, section 2.1.
STATISTICAL_BITS = 40

# Linear query (protocols/linear_query/README.md, section 5).

#: Ring degree. HomomorphicEncryption.org, "Homomorphic Encryption Security Standard" (Albrecht et al., 2018),
#: table 1, ternary secret: N = 8192 gives 128 bits against classical attacks up to log2(P) = 218.
#: Its table 2 (quantum cost model) allows 202 at the same level. Our modulus has just under 120 bits.
RLWE_DEGREE = 8192

#: The four largest primes below 2^30 that are 1 modulo 2N, so that X^N + 1 splits (NTT).
RLWE_PRIMES = (1073692673, 1073643521, 1073479681, 1073430529)

#: log2 of the largest ciphertext modulus that the standard allows at RLWE_DEGREE (table 2, the stricter).
RLWE_MAX_MODULUS_BITS = 202

#: Errors are centred binomial, sum of 21 bits minus sum of 21 bits: standard deviation sqrt(21/2) = 3.24, not
#: below the 8/sqrt(2*pi) = 3.19 of the standard's section 2.1. In place of a rounded Gaussian as in
#: Kyber and New Hope (Alkim, Ducas, Poppelmann, Schwabe, eprint 2015/1092, section 4.1).
RLWE_ERROR_ETA = 21

# Lookalike without noise (protocols/lookalike/README.md, section 6).

#: Exact sums over fewer than this many seeds a column are refused: with as many sums as unknown labels the
#: seeds can be solved for. arXiv 2205.04166 recovers labels when rows do not exceed columns; ten is a margin.
SEEDS_PER_COLUMN = 10

# Joint models (protocols/joint/README.md, section 6).

#: A gradient is decrypted only over so many rows a column of one side, for the same reason.
ROWS_PER_COLUMN = 10

# align, enrich (protocols/oprf/README.md, sections 4 and 5). The group is ristretto255 (RFC 9496): order
# about 2^252, so the discrete logarithm costs about 2^126 additions.

#: The receiver's size is announced rounded up to this many bits after the leading one (as in Padme, Nikitin
#: et al., PETS 2019, section 4, which lets the number of bits grow with log log n; three are fixed here).
PADDING_MANTISSA_BITS = 3

#: Smallest size that is announced, so that a request for one person looks like one for 256.
PADDING_FLOOR = 256

#: Bytes of enrich's look-up tags and of a derived record key. Two tags of a table of 2^40 records are equal
#: with probability 2^-49; 32 bytes are the key of ChaCha20-Poly1305 (RFC 8439, section 2.8).
LOOKUP_TAG_BYTES = 16
RECORD_KEY_BYTES = 32

# Private join (protocols/private_join/README.md, section 6).

#: Bits of a Paillier modulus: as hard to factor as 128 bits; NIST SP 800-57 part 1 rev. 5, table 2.
PAILLIER_BITS = 3072

#: The valuer's modulus has no prime factor below this, and the valuer shows so many n-th roots: then an n
#: with gcd(n, phi(n)) > 1 passes with probability (2^16)^-8 = 2^-128 at most. Goldberg, Reyzin, Sagga,
#: Baldimtsi, "Efficient Noninteractive Certification of RSA Moduli and Beyond", eprint 2018/057.
PAILLIER_LEAST_FACTOR = 1 << 16
PAILLIER_ROOTS = 8

# Oblivious key-value store (protocols/okvs/README.md, section 3), used by align's suite `vole`.

#: Keys a bin: positions of one bin stay in a core's cache. Raghuraman and Rindal, eprint 2022/320
#: ("clustering"), and the default of its authors' code (github.com/Visa-Research/volepsi, `mBinSize`).
OKVS_BIN = 1 << 14

#: Expansion e of the sparse part for n keys, weight 3, failure 2^-b:
#: b = 2^(OKVS_SLOPE log2 n + OKVS_START) (e - OKVS_THRESHOLD) - 9.2. The authors' fit to their experiments
#: (the paper's section 3.2, equations 2 and 3, there rounded; `PaxosParam::init` of the same code, whose
#: terms in log2(weight) are summed up here for weight 3: 0.093 w^3 - 1.01 w^2 + 2.925 w - 0.133, w = log2 3).
OKVS_THRESHOLD = 1.223
OKVS_SLOPE = 0.555
OKVS_START = 2.336

# align, suite `vole` (protocols/align/vole/README.md, section 4).

#: Bits of the subfield in which the store's values lie in the semi-honest variant. A row of the sender's that
#: the receiver lacks is decoded by accident with 2^-64; over m rows of all runs that is 2^-40 up to m = 2^24,
#: beyond which the whole field is used. Raghuraman and Rindal, eprint 2022/320, section 4 (low communication)
#: ask for lambda + log2(N m) bits; why m alone counts here: the README. As wide as VOLE's subfield.
VOLE_SUBFIELD_BITS = 64

# OT and VOLE (protocols/ot/README.md, section 4; protocols/vole/README.md, sections 5 and 6).

#: Base OTs of an extension, one for each bit of Δ. Ishai, Kilian, Nissim, Petrank, CRYPTO 2003; with the
#: check of Roy, SoftSpokenOT, eprint 2022/192 (k = 1).
OT_COLUMNS = 128


class Lpn(NamedTuple):
    """Dual LPN with regular noise: `blocks` unknown positions, one a block of at least `floor` leaves, and a
    block-accumulate code of rate 1/2 with `accumulations` rounds of accumulating and permuting."""

    blocks: int
    floor: int
    accumulations: int
    feistel_rounds: int


#: 128 blocks and two accumulations before a block-diagonal code of 32 × 32 bits: libOTe's default BlkAcc3x32
#: (osu-crypto/libOTe, libOTe/TwoChooseOne/ConfigureCode.h, commit a0871f69; its depth 3 counts the diagonal
#: code). Prange's algorithm against rate 1/2 guesses right with probability 2^-128. The floor of 64 leaves
#: is ours.
LPN_STANDARD = Lpn(blocks=128, floor=64, accumulations=2, feistel_rounds=4)

#: Half as many blocks again, and one accumulation more.
LPN_CONSERVATIVE = Lpn(blocks=192, floor=64, accumulations=3, feistel_rounds=6)

#: What both sides use: the one line to change.
VOLE_LPN = LPN_STANDARD
