"""PEC's hub: asks for jobs, builds audiences, measures and reports, from the command line or from Python."""

from pec.version import __version__

__all__ = ["__version__"]
