"""Benchmarks of the running product: ``python -m benchmarks``. How to run and read them: docs/how-to/benchmarks.md."""
