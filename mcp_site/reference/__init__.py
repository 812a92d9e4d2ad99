"""The reference pages that are made from code: one place for each table, none of them written by hand."""
