"""Mutated frames and requests, made from valid ones, against a live server: ``python -m tests.faults.fuzz``.

``seeds`` says what is valid, ``mutations`` what is done to it, ``raw_socket`` sends any bytes, ``judge`` looks at what
comes back, ``sockets`` and ``requests`` are the two doors, ``campaign`` runs both beside a client that must not notice.
"""
