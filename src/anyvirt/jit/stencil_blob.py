"""The blob of the stencil tier of an instruction set: the translator, with the tables behind its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.jit.blob import Blob, link
from anyvirt.jit.stencil_layout import LITERAL_SIZE

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

TRANSLATE, TRANSLATE_PAGE, DECODE = "translate", "translate_page", "decode"
"""Symbols: what translates around an entry, what does so in a page, and what decodes given records."""
TABLES = "tables"
"""Symbol of the tables."""


def stencil_blob(isa: InstructionSet, *, counted: bool, memory: str = "flat") -> Blob:
    """Compile the stencil tier of an instruction set. Imports LLVM."""
    from anyvirt.jit.ahead import handler_forms
    from anyvirt.jit.handlers import Features
    from anyvirt.jit.llvm import compile_module, host_has
    from anyvirt.jit.stencil import compile_forms
    from anyvirt.jit.stencil_tables import build_tables
    from anyvirt.jit.stencil_translator import translator_module

    features = Features(counted=counted, fma=host_has("fma"), memory=memory)
    forms = list(handler_forms(isa))
    text, compiled = compile_forms(isa, features, forms)
    lengths = [form.length for form in forms]
    tables = build_tables(compile_module(text, relocation="static"), lengths, compiled)
    translator = link(compile_module(translator_module()))
    code = translator.code + bytes(-len(translator.code) % LITERAL_SIZE)
    symbols = {name: translator.symbols[name] for name in (TRANSLATE, TRANSLATE_PAGE, DECODE)}
    return Blob(code + tables, 0, {**symbols, TABLES: len(code)}, {"forms": len(forms)})
