# Everything here works on a fresh machine with Python 3.11 or newer and nothing else.

PYTHON ?= python3
BIN := .venv/bin
# How many tests run at the same time, and after how many seconds one counts as hanging: they mostly wait, for a ttl or for
# a process, but share the cores. TEST_PROCESSES=0 runs them one after another.
TEST_PROCESSES ?= 5
TEST_SECONDS ?= 60

# Where `make install` puts things (DESTDIR is put before all of it), and with which Python it is to run there.
PREFIX ?= /opt/unitd
BASE ?= /usr/local
SYSTEM_PYTHON ?= $(shell test -x /usr/bin/python3 && echo /usr/bin/python3 || command -v $(PYTHON))

.PHONY: setup run test check diagram deb install uninstall clean

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

# A Debian package for this very release of Debian: dist/unitd_VERSION_ARCHITECTURE.deb
deb:
	@mkdir -p build
	flock build/.lock packaging/build-deb $(SYSTEM_PYTHON)

# The same without the package manager; configuration that is there is kept, and `make uninstall` keeps it too.
install:
	@mkdir -p build
	rm -rf build/install
	flock build/.lock packaging/stage build/install $(PREFIX) $(BASE) $(BASE)/lib/systemd/system $(SYSTEM_PYTHON)
	packaging/install build/install "$(DESTDIR)" $(PREFIX)

uninstall:
	packaging/uninstall "$(DESTDIR)" $(PREFIX)

clean:
	rm -rf .venv run build dist bench/.cache
