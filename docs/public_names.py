"""Tells Griffe, which reads the sources for reference.md, what names of the API stand for."""

from __future__ import annotations

from typing import Any

import griffe


class PublicNames(griffe.Extension):  # type: ignore[misc] # not everyone has Griffe
    """Functions as they are documented where they are defined, before types; values of enums."""

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Take `x = public(y)` for the function y."""
        for name, member in list(mod.attributes.items()):
            called = None if member.is_alias else member.value
            if isinstance(called, griffe.ExprCall) and str(called.function) == "public":
                target = called.arguments[0].canonical_path
                mod.set_member(name, griffe.Alias(name, target, parent=mod))
        if mod.exports is not None:
            mod.exports.sort(key=lambda name: str(name)[0].isupper())

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Name the members of an enum, few of which need a sentence of their own."""
        if "Enum" in map(str, cls.bases) and cls.docstring is not None:
            members = (each for each in cls.attributes.values() if each.name.isupper())
            named = (f"`{each.name}` ({each.value})" for each in members)
            cls.docstring.value += f"\n\nMembers: {', '.join(named)}."
