"""What objects consist of: named fields, and the items of arrays. No library is imported."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import ValuesView
from typing import Any

import msgspec

_ARRAY_MODULES = frozenset({"numpy", "pandas", "torch", "cupy", "jax", "jaxlib"})
"""Libraries whose arrays and scalars are recorded as numbers.

They have ``shape``, ``tolist`` and slices in the same way as NumPy.
"""


def fields_of(value: Any, kind: type) -> Any:
    """Return *value* as a mapping if it is an object with named fields, or a view of a mapping's
    values.

    Otherwise return ``None``. The names are needed to find secrets. A field that its class omits
    from the ``repr`` is omitted.
    """
    if dataclasses.is_dataclass(kind):
        return {
            field.name: getattr(value, field.name, None)
            for field in dataclasses.fields(kind)
            if field.repr
        }
    if issubclass(kind, msgspec.Struct):
        return {name: getattr(value, name, None) for name in kind.__struct_fields__}
    if issubclass(kind, tuple) and isinstance(fields := getattr(kind, "_fields", None), tuple):
        return dict(zip(fields, value, strict=False))
    if issubclass(kind, ValuesView):
        return getattr(value, "mapping", None) or getattr(value, "_mapping", None)
    if issubclass(kind, types.SimpleNamespace):
        return dict(vars(value))
    # Looked up in the classes' own dicts, because a metaclass may override attribute access.
    for base in kind.__mro__[:-1]:
        names = vars(base)
        if (attributes := names.get("__attrs_attrs__")) is not None:
            return {
                each.name: getattr(value, each.name, None)
                for each in attributes
                if each.repr is not False
            }
        # In pydantic 2 and pydantic 1.
        model = names.get("__pydantic_fields__", names.get("model_fields", names.get("__fields__")))
        if isinstance(model, dict) and (
            hasattr(kind, "__pydantic_fields_set__") or hasattr(kind, "__fields_set__")
        ):
            return _of_model(value, model)
        if names.get("__module__") == "argparse" and base.__name__ == "Namespace":
            return dict(vars(value))
    return None


def _of_model(value: Any, fields: dict[str, Any]) -> dict[str, Any]:
    hidden = {
        name
        for name, field in fields.items()
        if getattr(getattr(field, "field_info", field), "repr", True) is False
    }
    members = {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}
    return {name: member for name, member in members.items() if name not in hidden}


def is_array(kind: type) -> bool:
    """Return whether *kind* is an array, a scalar or a series of NumPy, or of a similar library."""
    if not (hasattr(kind, "tolist") and hasattr(kind, "shape")):
        return False
    return not _ARRAY_MODULES.isdisjoint(
        str(base.__module__).partition(".")[0] for base in kind.__mro__
    )


def of_times(value: Any) -> bool:
    """Return whether an array or a scalar contains times.

    These may be finer than Python's times, and would then become numbers.
    """
    return getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m")


def scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or of a similar library, as a Python value."""
    item: Any = str(value) if of_times(value) else value.tolist()
    if type(item) is not type(value):
        return item
    # it has a higher precision than Python's types
    return complex(item) if item.dtype.kind == "c" else float(item)


def type_name(value: Any) -> str:
    """Return the qualified name of the type of *value*."""
    # Not `type(value).__qualname__`, because a metaclass may override it.
    return str(_qualname(type(value)))


_qualname = type.__dict__["__qualname__"].__get__
