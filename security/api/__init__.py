"""Tokens by REST: a pair for an API key or a password, the next pair, and the end of one."""
