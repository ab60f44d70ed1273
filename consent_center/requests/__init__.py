"""Rights requests: access, copy, portability, correction, deletion, restriction, explanation."""
