"""Django's settings, made from the environment. Values that an installation may set are fields of `Environment`."""

from __future__ import annotations

import socket
from typing import Any

import dj_database_url

from mcp_site import __version__
from mcp_site.errors import BadEnvironment
from mcp_site.known_secrets import make_redactor
from mcp_site.settings.console import FORMAT_MODULE_PATH, UNFOLD  # noqa: F401  # Django and unfold read them
from mcp_site.settings.environment import Environment
from mcp_site.settings.own_apps import find_apps
from mcp_site.settings.reading import list_variables, load_environment
from mcp_site.settings.secrets import fill_in_secrets
from mcp_site.settings.sockets import choose_broker_socket, make_celery_url
from mcp_site.settings.variables import PROJECT_ROOT

MCP: Environment = fill_in_secrets(load_environment())
"""Our own settings; the rest of the project reads ``settings.MCP.<field>``."""

REDACTOR = make_redactor(getattr(MCP, variable.field) for variable in list_variables() if variable.is_secret)
"""Takes these secrets, and what looks like one, out of logs and of reports of failures."""

SERVER_NAME = "machine-context-protocol-server"
SERVER_VERSION = __version__
"""As the handshake tells them."""

# Which services

BROKER_SOCKET = None if MCP.redis_url else choose_broker_socket(MCP.data_dir)
"""The embedded Valkey's socket; ``None`` where `REDIS_URL` names another server."""
REDIS_URL = MCP.redis_url or f"unix://{BROKER_SOCKET}"
NODE_NAME = MCP.node_name or socket.gethostname()
"""Whose ports this process leases."""
IS_TRANSPORT_SECURE = MCP.tls_cert is not None or bool(MCP.trusted_proxies)

# Django

SECRET_KEY = MCP.secret_key
DEBUG = MCP.debug
BASE_DIR = PROJECT_ROOT
ROOT_URLCONF = "mcp_site.urls"
ASGI_APPLICATION = "mcp_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "security.Account"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

INSTALLED_APPS = [
    # First, so that its `runserver` (daphne's, with a check of the broker) and its templates win. daphne itself is not
    # installed as an app: that imports Twisted into every process, the workers' too.
    "mcp_site",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "protocol",
    "security",
    "contexts",
    "tools",
]
INSTALLED_APPS += find_apps(MCP.apps, installed=INSTALLED_APPS)

MIDDLEWARE = [
    "mcp_site.web.headers.security_headers",
    "mcp_site.address_guard.guard_strangers",
    "django.middleware.security.SecurityMiddleware",
    "mcp_site.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "mcp_site.console.sessions.note_activity",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "mcp_site.acting.acting_middleware",
    "mcp_site.address_guard.guard_accounts",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

MESSAGE_MIDDLEWARE: list[str] = []
"""Dotted paths of what runs around every message, outermost first (``protocol.middleware``)."""

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 3600
WHITENOISE_ALLOW_ALL_ORIGINS = False

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Machine Context Protocol server",
    "DESCRIPTION": (
        "Tools and their runs for programs. The same commands as by WebSocket, under the same policy, with the same "
        "error codes and the same record."
    ),
    "VERSION": SERVER_VERSION,
    "OAS_VERSION": "3.1.0",
    "LICENSE": {"name": "Apache-2.0"},
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or an access token."}
        }
    },
    # From the sidecar's static files: the page loads nothing from elsewhere.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_INCLUDE_SCHEMA": False,
}

# Database

DATABASE_THREADS = MCP.database_threads or (2 if MCP.database_url is None else 4)


def _make_database() -> dict[str, Any]:
    if MCP.database_url is None:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": MCP.data_dir / "db.sqlite3",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                # Taking the write lock at BEGIN makes a busy database wait, where an upgrade in mid-transaction fails.
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                # FULL, as NORMAL may lose the last commits at power loss, and what was answered must stay. A run writes
                # some 65 pages: with the usual 1,000 a checkpoint would hold up every 15th.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=8000;",
            },
            "TEST": {"NAME": MCP.data_dir / "test.sqlite3"},
        }
    try:
        database = dict(dj_database_url.parse(MCP.database_url, conn_max_age=0, conn_health_checks=True))
    except ValueError as error:
        raise BadEnvironment("DATABASE_URL: this is not a database's URL") from error
    options = {
        # Statements that come again are prepared: the server plans them once a connection.
        "server_side_binding": True,
        "prepare_threshold": 5,
        "pool": {"min_size": 1, "max_size": 2 * DATABASE_THREADS + 2, "timeout": 2},
    }
    return {**database, "OPTIONS": {**database.get("OPTIONS", {}), **options}}  # type: ignore[dict-item]  # its TypedDict calls options plain


DATABASES = {"default": _make_database()}

# Channels and Celery

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "mcp"},
    },
}

CELERY_BROKER_URL = MCP.celery_broker_url or make_celery_url(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# The row in the database is the truth and a reconciler sends again, so a broker that is down must fail at once.
CELERY_BROKER_CONNECTION_TIMEOUT = 2
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
    "retry_on_timeout": False,
    "health_check_interval": 25,
}
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
CELERY_TASK_IGNORE_RESULT = True
# No results, so no clean-up of them in the schedule.
CELERY_RESULT_EXPIRES = None
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "mcp.normal"
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SEND_TASK_EVENTS = False
# Nothing uses it: workers are seen by their leases, runs are cancelled by their rows.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BEAT_SCHEDULER = "mcp_site.scheduling:HousekeepingScheduler"
CELERY_BEAT_SCHEDULE: dict[str, Any] = {
    "send waiting executions": {"task": "tools.send_waiting_executions", "schedule": 2.0},
    "reap executions": {"task": "tools.reap_executions", "schedule": 5.0},
    "purge executions": {"task": "tools.purge_executions", "schedule": 3600.0},
    "expire sessions": {"task": "protocol.expire_sessions", "schedule": 30.0},
    "sweep port leases": {"task": "security.sweep_port_leases", "schedule": 5.0},
    "purge port leases": {"task": "security.purge_port_leases", "schedule": 3600.0},
    "advance rotations": {"task": "security.advance_rotations", "schedule": 2.0},
    "reseal stragglers": {"task": "security.reseal_stragglers", "schedule": 3600.0},
    "purge console sessions": {"task": "mcp_site.purge_console_sessions", "schedule": 3600.0},
    "warn of aged keys": {"task": "security.warn_of_aged_keys", "schedule": 86_400.0},
    "purge credentials": {"task": "security.purge_credentials", "schedule": 300.0},
}
CELERY_DB_REUSE_MAX = 10_000

# Security

ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *MCP.allowed_hosts]
if MCP.bind not in ("0.0.0.0", "::", *ALLOWED_HOSTS):  # noqa: S104  # compared, not bound
    ALLOWED_HOSTS.append(f"[{MCP.bind}]" if ":" in MCP.bind else MCP.bind)

# Counts wrong passwords; whoever adds a backend adds a way around that.
AUTHENTICATION_BACKENDS = ["security.backends.PasswordBackend"]
if MCP.oidc_issuer:
    # Without it, sessions that a provider's word has opened end.
    AUTHENTICATION_BACKENDS.append("security.backends.ProviderBackend")
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# A browser takes a cookie of such a name only with `Secure`, for the whole host, and from that host itself.
COOKIE_PREFIX = "__Host-" if IS_TRANSPORT_SECURE else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}mcp_session"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}mcp_csrf"
SESSION_ENGINE = "mcp_site.console.sessions"
SESSION_COOKIE_AGE = MCP.console_session_hours * 60 * 60
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
# Lax, not Strict: a link to a page of the console, and an identity provider's way back, find the operator signed in.
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "mcp_site.web.error_pages.show_csrf_failure"
# In the session, not in a cookie of their own.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = IS_TRANSPORT_SECURE
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
# Only under names that were given: a browser would hold `localhost` to it for every other server on the machine.
SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60 if IS_TRANSPORT_SECURE and MCP.allowed_hosts else 0
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in MCP.allowed_hosts if IS_TRANSPORT_SECURE and host != "*"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * MCP.max_message_size_bytes
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
DATA_UPLOAD_MAX_NUMBER_FILES = 10

DEFAULT_EXCEPTION_REPORTER = "mcp_site.web.failure_reports.RedactedReporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "mcp_site.web.failure_reports.ReportFilter"

SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for subdomains: this server knows of its own host only
    "security.W021",  # HSTS preload: a decision about the whole domain, not this server's
]

# Logs: one line a record, on stderr; `serve` names the process and writes the files.

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "mcp_site.logs.LineFormatter", "redactor": REDACTOR}},
    "filters": {
        "readiness": {"()": "mcp_site.logs.ReadinessFilter"},
        "refusal": {"()": "mcp_site.logs.RefusalFilter"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": MCP.log_level.upper()},
    "loggers": {
        # Django's own handlers would print a second time.
        "django": {"handlers": [], "propagate": True},
        # At DEBUG, with MCP_DEBUG, it writes each statement with its values, sealed and hashed ones and sessions too.
        "django.db.backends": {"level": "INFO"},
        "django.request": {"filters": ["readiness", "refusal"]},
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"level": "WARNING"},
        # At INFO these write a line for each task and each round of the schedule.
        "celery": {"level": "WARNING"},
        "django_celery_beat": {"level": "WARNING"},
        # At INFO it writes the ids of passkeys.
        "fido2": {"level": "WARNING"},
        # At DEBUG it writes the headers of responses, with the cookies that they set.
        "httpcore2": {"level": "WARNING"},
        # At INFO it writes each request's URL with its query; Authlib at DEBUG writes verifiers.
        "httpx2": {"level": "WARNING"},
        "authlib": {"level": "WARNING"},
    },
}
