"""The parts of `center.Center`: a module for each kind of call, over one base of keys and transactions."""
