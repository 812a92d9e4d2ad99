"""The composition: settings, ASGI, URLs, Celery, the console, monitoring and the commands that run it all."""

__version__ = "0.1.0"
