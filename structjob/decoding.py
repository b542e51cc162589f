"""What decoding JSON raises."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""Exceptions of `msgspec.json.decode`: the text is no JSON, has another type, is not UTF-8, or is
nested too deeply.
"""
