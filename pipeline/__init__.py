"""Two stages: features of histology images extracted once, classifiers fitted from them.

The command line is `pipeline`; the modules are imported by name. Importing the package itself
imports nothing else.
"""

__version__ = "0.1.0"
