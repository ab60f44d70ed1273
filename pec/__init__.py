"""PEC's hub: asks for jobs, builds audiences, measures and reports, from the command line or from Python."""

__version__ = "0.1.0"
