"""The hub's version: in a module of its own, which is found even where a folder `pec` hides the package.

With an editable install Python takes a folder of that name beside a script (a clone, say) for the package
itself and finds its modules all the same, but nothing that stands in `pec/__init__.py`.
"""

__version__ = "0.1.0"
