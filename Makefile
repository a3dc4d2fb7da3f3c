# Everything here works on a fresh machine with Python 3.11 or newer and nothing else.

PYTHON ?= python3
BIN := .venv/bin
# How many tests run at the same time, and after how many seconds one counts as hanging: they mostly wait, for a ttl or for
# a process, but share the cores. TEST_PROCESSES=0 runs them one after another.
TEST_PROCESSES ?= 5
TEST_SECONDS ?= 60

.PHONY: setup run test check diagram clean

# The virtual environment, with unitd and unitctl in it. Made again when the dependencies change.
setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[center,gateway]'
	touch $@

.venv/.installed-for-tests: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,check]'
	touch $@

# A whole system under unitd, in the foreground, in a folder of its own: a shop, its gateway, its customers, the control
# center. Ctrl-C ends it and leaves nothing running.
run: setup
	@if test -S run/demo/unitd.sock && $(BIN)/unitctl -q -c run/demo/unitd.toml status >/dev/null 2>&1; then \
		echo "the demo runs already: stop it with Ctrl-C in its terminal" >&2; exit 1; fi
	@rm -rf run/demo && mkdir -p run/demo && cp etc/demo/*.toml etc/demo/*.py run/demo/
	@cat etc/demo/hello.txt
	@cd run/demo && PATH="$(CURDIR)/$(BIN):$$PATH" exec ../../$(BIN)/unitd -c unitd.toml

test: .venv/.installed-for-tests check
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal --timeout $(TEST_SECONDS) $(PYTEST_ARGS)

check: .venv/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

diagram: .venv/.installed-for-tests
	$(BIN)/python docs/unit_states.py
	PYTHONPATH=. $(BIN)/python docs/center_http_api.py

clean:
	rm -rf .venv run bench/.cache
