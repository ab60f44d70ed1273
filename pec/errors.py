"""Errors of the hub and of the command line.

`detail` says what was wrong and where, `hint` what to do. Errors of the other packages carry a `code` and a
text too; `pec.cli_common` prints them all alike. `exit_code_of` is the one table from a code to an exit code.
"""

from __future__ import annotations

CODES: dict[str, str] = {
    "pec.usage": "the command line is wrong: an unknown command or option, a missing argument, a bad value",
    "pec.file": "a file or directory is missing, unreadable, or not of the kind that was expected",
    "pec.column": "a column that was named is not in the file",
    "pec.input": "a file was read, but its content can't be used",
    "pec.output": "a result can't be written, or would overwrite something",
    "pec.home": "the directory is no node home, or already is one",
    "pec.dependency": "an optional package that this command needs is not installed",
    "pec.node": "a node can't be reached, did not start, or ended unexpectedly",
    "pec.waiting": "a job waits for the partner's approval",
    "pec.timeout": "something did not finish within the time allowed",
    "pec.job_refused": "a job was refused: by the partner, by an agreement, or by consent",
    "pec.job_failed": "a job ended without a result",
    "pec.audience": "an audience can't be built as asked",
    "pec.metrics": "quality can't be measured on these rows",
    "pec.bundle": "an audit bundle does not verify",
    "pec.bench": "a process that a benchmark started failed",
    "pec.check": "a check that the command makes of its own result failed",
    "pec.interrupted": "stopped by the user",
    "pec.internal": "an error that nobody foresaw: a bug",
}

EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 130

# By area, or by code where an area has both kinds; what is in neither table is a failure.
_INPUT = {
    *("pec.usage", "pec.file", "pec.column", "pec.input", "pec.output", "pec.home", "pec.dependency"),
    "pec.audience",
    *("registry", "event", "identifier", "decision", "import", "request", "dataset", "rows", "tags"),
    *("preference", "signal", "receipt"),
    *("center.exists", "center.missing", "center.location", "subject.unknown", "snapshot.unknown"),
    *("node.config", "node.exists", "node.home", "node.request", "identity", "document", "job.unknown"),
    *("model.unknown", "model.alias", "model.share"),
    *(
        "job.kind",
        "job.spec",
        "job.parameter",
        "job.people",
        "job.state",
        "job.result",
        "gate.identifiers",
        "gate.kind",
    ),
    *("features", "bundle.unreadable"),
    *("ledger.index", "ledger.payload", "ledger.key", "protocol.argument"),
}
_REFUSED = {
    *("pec.job_refused", "pec.bundle", "request.unauthorised", "document.signature", "document.expired"),
    *(
        "agreement",
        "consent",
        "job.rejected",
        "lookalike.seeds",
        "lookalike.columns",
        "identity.unknown_peer",
        "identity.untrusted",
    ),
    *("transport.certificate", "transport.refused", "transport.role", "snapshot.signature", "ledger.note"),
    *("receipt.signature", "receipt.mismatch", "model.expired", "model.retired", "model.agreement"),
}


class PecError(Exception):
    """`code` is one of `CODES`; `detail` says what and where, `hint` what to do; `str` has all three."""

    def __init__(self, code: str, detail: str, hint: str = "") -> None:
        if code not in CODES:
            raise KeyError(f"unregistered error code {code!r}")
        super().__init__(f"{code}: {detail}" + (f" (hint: {hint})" if hint else ""))
        self.code = code
        self.detail = detail
        self.hint = hint


def exit_code_of(code: str) -> int:
    """2 for bad input, 3 for a refusal, 130 for an interruption, 1 for everything else."""
    if code == "pec.interrupted":
        return EXIT_INTERRUPTED
    for known in (code, code.partition(".")[0]):
        if known in _REFUSED:
            return EXIT_REFUSED
        if known in _INPUT:
            return EXIT_INPUT
    return EXIT_FAILED
