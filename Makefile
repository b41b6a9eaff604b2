# The long forms, remembered; `make help` lists them. Each target is `resnext VERB` underneath.
# RUN and DATA reach the recipes through the environment, so that any name a shell can hold arrives as it is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RESNEXT := $(VENV)/bin/resnext
export PYTHON EXP RUN DATA ARGS

# Hydra reads a quoted value as text: 20250101 stays a name, commas and brackets stay themselves.
quoted = "$(1)=\"$$(sed -E 's/(\\*)"/\1\1\\"/g; s/(\\+)$$/\1\1/' <<< "$$$(2)")\""

.PHONY: help train resume evaluate test lint format

help: ## list the targets
	@echo "make train                                      train a small ResNeXt on digits, about a minute"
	@echo "make train EXP=NAME [DATA=PATH] [RUN=NAME] [ARGS='KEY=VALUE …']"
	@echo "                                                EXP: $(basename $(notdir $(sort $(wildcard configs/experiment/*.yaml))))" | fold -s -w 79
	@echo "make resume [RUN=runs/NAME]                     go on with a run, by default the latest unfinished"
	@echo "make evaluate RUN=runs/NAME                     validate its best checkpoint again"
	@echo "make test, make lint, make format               for those who change the code"

train: $(READY) ## make a run and train it, or go on with it
	@$(RESNEXT) train $(if $(EXP),experiment=$(EXP)) $(if $(RUN),$(call quoted,run,RUN)) $(if $(DATA),$(call quoted,data.root,DATA)) $(ARGS)

resume: $(READY) ## go on with a run
	@$(RESNEXT) resume $(if $(RUN),"$$RUN") $(ARGS)

evaluate: $(READY) ## validate a checkpoint
	@$(RESNEXT) evaluate "$$RUN" $(ARGS)

test: $(READY) ## the fast suite
	@$(VENV)/bin/pytest $(ARGS)

lint: $(READY) ## formatter, linter, type checker, import layers
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/basedpyright

format: $(READY) ## format, and mend what the linter can
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

$(READY): pyproject.toml requirements.lock scripts/setup.sh
	@scripts/setup.sh $(VENV)
