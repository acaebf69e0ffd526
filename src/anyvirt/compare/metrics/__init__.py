"""Metrics: each file knows how to measure one thing on all engines, from the outside."""
