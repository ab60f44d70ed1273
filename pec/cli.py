"""`pec`: the command line. A command's module is loaded only when it is called, so `pec --help` answers at
once.
"""

from __future__ import annotations

import gc
import sys

import click

from consent_center import no_pandas
from pec.cli_common import run
from pec.lazy_group import LazyGroup
from pec.version import __version__

# name → (module and attribute, what `pec --help` says)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("pec.cli_demo:demo", "The main job on real data: three nodes, from import to audit."),
    "simulate": (
        "pec.cli_simulate:simulate",
        "A job between two files of yours, both parties on this machine.",
    ),
    "node": ("pec.cli_node:node", "Run a party node: identity, partners, data sets, agreements."),
    "job": ("pec.cli_job:job", "Ask for, approve, watch and read jobs."),
    "model": ("pec.cli_model:model", "Models that jobs made: versions, cards, aliases, expiry, consent."),
    "audience": ("pec.cli_audience:audience", "Build an audience from a lookalike's scores."),
    "consent": ("pec.cli_consent:consent", "The consent center: purposes, notices, events, decisions."),
    "preference": ("pec.cli_preference:preference", "Who may be contacted: channels, caps, quiet hours."),
    "audit": ("pec.cli_audit:audit", "Verify bundles; checkpoints and proofs of the ledger."),
    "bench": ("pec.cli_bench:bench", "Measure on synthetic data."),
    "warmup": ("pec.cli_bench:warmup", "Compile the numeric kernels now, not in the first job."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pec")
def cli() -> None:
    """Privacy-preserving computation between a brand and its data providers, gated by consent.

    Start with `pec demo`, or with `pec simulate` on two files of your own. Every command takes --json and
    then prints its result as one line of JSON; progress and messages go to standard error.

    Exit codes: 0 done, 1 failed, 2 wrong input, 3 refused, 130 interrupted.
    """


#: Commands that never use pandas.
WITHOUT_PANDAS = ("consent", "preference")


def main() -> None:
    gc.set_threshold(50_000, 20, 20)  # what modules make on loading is no garbage: looking for it takes time
    if sys.argv[1:] and sys.argv[1] in WITHOUT_PANDAS:
        no_pandas.keep_out()
    sys.exit(run(cli))


if __name__ == "__main__":
    main()
