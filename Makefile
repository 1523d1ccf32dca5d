# make demo · make test · make test-slow · make sanitize · make lint · make docs · make build
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
JOBS   ?= 2
# Each of the processes that share the tests computes on one core; a file's tests stay together, with what they train once.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*/* csrc/*/*/*)

.PHONY: demo test test-slow sanitize lint docs build
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(PY) tools/demo.py

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST)

# A build of its own, by gcc, in build/sanitized.
sanitize: $(STAMP)
	$(PY) tools/sanitize.py

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The methods and the configuration's keys in docs/ are filled from the code first; the site is site/index.html.
docs: $(STAMP)
	$(PY) tools/make_docs.py
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

build: $(STAMP)

# torch comes first: the extension is compiled against it, without build isolation.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet "torch>=2.6" torchvision "setuptools>=77" pybind11 ninja
	touch $@

$(STAMP): $(VENV)/.torch $(SOURCES)
	$(PY) -m pip install --quiet --no-build-isolation -e ".[dev]"
	touch $@
