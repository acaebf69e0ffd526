"""The comparison: workloads and metrics, measured on every engine side by side, and their report.

This file stays empty of imports: `import anyvirt` runs it (the package and the public function share a name).
The entry points are `compare.comparison.compare` and the writers in `compare.report`.
"""
