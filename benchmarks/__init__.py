"""Benchmarks of the running product, `python -m benchmarks`.

How to run them and read what they say: docs/how-to/run-the-benchmarks.md.
"""
