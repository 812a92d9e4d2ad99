"""Seeing whether the product works: health and readiness."""
