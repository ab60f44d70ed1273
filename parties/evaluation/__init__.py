"""Processes that measure and check protocols on an evaluator's own files: no node, no consent center, no job.

`pec bench` starts them. They alone may open a file by `gate.assume_file`, whose view says that consent was
assumed. Nothing that a node runs may import this package (an import contract holds it).
"""
