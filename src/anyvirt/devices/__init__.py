"""Chips: each file is one, with its registers named as in its data sheet. None of them knows an executor."""
