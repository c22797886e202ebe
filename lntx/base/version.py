"""The version of lntx."""

__version__ = "0.1.0"
