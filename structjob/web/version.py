"""The version of the library that serves."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("structjob")
except PackageNotFoundError:
    VERSION = "unknown"
