"""The version, which nothing but this file says."""

__version__ = "0.1.0"
