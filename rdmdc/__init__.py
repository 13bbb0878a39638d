"""RDM-DC: data poisoning of dataset condensation, and condensation that resists it.

Importing the package is cheap: it imports neither torch nor pyarrow.
"""

__version__ = "0.2.0.dev0"
