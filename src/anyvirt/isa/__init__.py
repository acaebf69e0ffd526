"""Instruction sets described in typed Python, one module or package each; nothing here executes them."""
