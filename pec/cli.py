"""`pec`: the command line. A command's module is loaded only when it is called, so `pec --help` answers at
once.
"""

from __future__ import annotations

import importlib
import sys

import click

from pec import __version__
from pec.cli_common import run

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


class LazyGroup(click.Group):
    """A group that imports a command's module on use and lists commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pec")
def cli() -> None:
    """Privacy-preserving computation between a brand and its data providers, gated by consent.

    Start with `pec demo`, or with `pec simulate` on two files of your own. Every command takes --json and
    then prints its result as one line of JSON; progress and messages go to standard error.

    Exit codes: 0 done, 1 failed, 2 wrong input, 3 refused, 130 interrupted.
    """


def main() -> None:
    sys.exit(run(cli))


if __name__ == "__main__":
    main()
