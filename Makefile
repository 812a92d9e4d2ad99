# The commands of this project. `make help` lists them.
#
# PYTHON may name another interpreter (3.11 or newer): make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
IN := $(VENV)/bin/
DATA := $${MCP_DATA_DIR:-var}

# What `make run` needs, and what the suite and the linters need beside it.
RUNTIME := requirements.txt
DEVELOPMENT := requirements-dev.txt

# Extras are kept in the lock: without them pip looks for `coverage[toml]` beside `coverage==`, and finds a newer one.
LOCK = uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-header --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help run test faults fuzz benchmark lint format lock stop reset runtime development

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1@/' | column -t -s@ 2>/dev/null \
		|| grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST)

run: runtime ## set up what is missing, then start everything; Ctrl-C stops it
	@export MCP_WORKSPACE="$${MCP_WORKSPACE:-$(CURDIR)/docs}"; exec $(IN)python manage.py serve

test: development ## run the whole suite; it brings its own services
	@exec $(IN)pytest -n 2 --dist loadgroup $(ARGS)

faults: development ## a long run under a load while processes are killed at random; prints its table
	@exec $(IN)python -m tests.faults.soak $(ARGS)

fuzz: development ## 100,000 mutated frames and requests against a live server; prints its table
	@exec $(IN)python -m tests.faults.fuzz $(ARGS)

benchmark: development ## measure everything; writes benchmarks/results/
	@exec $(IN)python -m benchmarks $(or $(ARGS),all)

lint: development ## ruff, mypy, import-linter, djlint, missing migrations, Django's deployment checks
	@exec .ci/lint

format: development ## let ruff and djlint rewrite what they can
	@$(IN)ruff check --fix . && $(IN)ruff format . && $(IN)djlint --quiet --reformat templates

lock: ## write the hashed requirements anew from pyproject.toml; needs uv
	@$(LOCK) --output-file $(RUNTIME)
	@$(LOCK) --group dev --constraint $(RUNTIME) --output-file $(DEVELOPMENT)

stop: ## stop what `make run` started
	@exec $(PYTHON) -m mcp_site.serving.stop "$(DATA)"

reset: ## delete all state (accounts, keys, runs, logs); asks first
	@exec $(PYTHON) -m mcp_site.serving.reset "$(DATA)"

runtime:
	@.ci/install $(PYTHON) $(VENV) $(RUNTIME)

development:
	@.ci/install $(PYTHON) $(VENV) $(DEVELOPMENT)
