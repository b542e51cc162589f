"""The attributes of jobs and steps: checked when they are set, or set by the library only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:

    class Checked(Generic[T]):
        """The declaration for type checkers; the implementation is below."""

        check: Callable[[Any], T]

        def __init__(self, check: Callable[[Any], T], *, optional: bool = False) -> None: ...
        def __get__(self, core: object, owner: type) -> T: ...
        def __set__(self, core: object, value: Any) -> None: ...

    class Settable(Generic[T]):
        """The declaration for type checkers; the implementation is below."""

        def __get__(self, handle: object, owner: type) -> T: ...
        def __set__(self, handle: object, value: Any) -> None: ...

    class ReadOnly(Generic[T]):
        """The declaration for type checkers; the implementation is below."""

        def __init__(self, hint: str, path: str = "") -> None: ...
        def __get__(self, handle: object, owner: type) -> T: ...

else:
    # These are properties with getters that are not written in Python, so a read takes tens of
    # nanoseconds.

    class Checked(property, Generic[T]):
        """An attribute of a core that is checked whenever it is set.

        The core keeps it in its slot ``_set_…``, or else in its ``columns``. The check matters
        because a value that the database refuses would prevent it from storing the final state.

        Args:
            check: A function that returns the value to keep, or raises `InvalidArgument`.
            optional: Whether it may be ``None``, which is not checked.
        """

        def __init__(self, check: Callable[[Any], T], *, optional: bool = False) -> None:
            self.check = check
            self._optional = optional

        def __set_name__(self, owner: type, name: str) -> None:
            slot, check, optional = f"_set_{name}", self.check, self._optional
            if slot in owner.__dict__:
                get, put = attrgetter(slot), owner.__dict__[slot].__set__
            else:
                get, put = attrgetter(f"columns.{name}"), partial(_put_column, name)
            super().__init__(
                get,
                lambda core, value: put(core, None if optional and value is None else check(value)),
            )

    class Settable(property, Generic[T]):
        """An attribute of a handle that users may set; its core checks and keeps it."""

        def __init__(self) -> None:
            """Leave all to `__set_name__`, which knows the name."""

        def __set_name__(self, owner: type, name: str) -> None:
            core = attrgetter("_core")
            super().__init__(
                attrgetter(f"_core.{name}"),
                lambda handle, value: setattr(core(handle), name, value),
            )

    class ReadOnly(property, Generic[T]):
        """An attribute of a handle that only the library sets.

        Args:
            hint: What to do instead of setting it, for the `AttributeError`.
            path: Where its core has the value; by default under the same name.
        """

        def __init__(self, hint: str, path: str = "") -> None:
            self._hint = hint
            self._path = path

        def __set_name__(self, owner: type, name: str) -> None:
            hint = self._hint
            super().__init__(
                attrgetter(f"_core.{self._path or name}"),
                lambda handle, value: refuse(handle, name, hint),
            )


def _put_column(name: str, core: Any, value: Any) -> None:
    setattr(core.columns, name, value)


class Absent:
    """An attribute that handles do not have, but that users may guess. Setting it raises an error
    with a hint.

    Args:
        hint: See `ReadOnly`.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, handle: object, owner: type) -> Any:
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")

    def __set__(self, handle: object, value: Any) -> None:
        refuse(handle, self._name, self._hint)


def refuse(handle: object, name: str, hint: str) -> NoReturn:
    """Raise `AttributeError` for an attempt to set the attribute *name*."""
    raise AttributeError(f"{type(handle).__name__}.{name} cannot be set; {hint}")
