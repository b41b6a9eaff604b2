# Short commands for the long ones; `make help` lists them. Each target runs `resnext VERB`.
# The recipes below read RUN and DATA from the environment, so that make expands nothing in a name.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RESNEXT := $(VENV)/bin/resnext
override RUN := $(value RUN)
override DATA := $(value DATA)
export PYTHON RUN DATA

known := EXP RUN DATA ARGS NODES GPUS WATCH PYTHON SHELL VENV
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
ifneq ($(filter-out $(known) MAKEFLAGS MAKEOVERRIDES,$(given)),)
$(error $(filter-out $(known),$(given)) is unknown; `make` lists what can be given)
endif
ifeq ($(EXP),)
ifneq ($(DATA),)
ifneq ($(filter train,$(MAKECMDGOALS)),)
$(error DATA needs an experiment for it, such as EXP=image_folder, EXP=finetune or EXP=resnext50_imagenet)
endif
endif
endif
ifeq ($(DATA),)
ifneq ($(filter bench,$(MAKECMDGOALS)),)
$(error bench needs photos: make bench DATA=PATH)
endif
ifneq ($(filter predict,$(MAKECMDGOALS)),)
$(error predict needs images: make predict RUN=runs/NAME DATA=PATH)
endif
endif
ifeq ($(RUN),)
ifneq ($(filter predict export publish average report,$(MAKECMDGOALS)),)
$(error give a run: make $(firstword $(MAKECMDGOALS)) RUN=runs/NAME)
endif
endif

# Hydra reads a quoted value as text: 20250101 stays a name, and commas and brackets have no special meaning.
quoted = "$(1)=\"$$(sed -E 's/(\\*)"/\1\1\\"/g; s/(\\+)$$/\1\1/' <<< "$$$(2)")\""
at_data = $(if $(DATA),$(call quoted,data.root,DATA))

.PHONY: help train check sweep study-cardinality slurm status resume report evaluate predict export publish average models prepare bench \
	test test-processes test-faults test-slurm lint format docs

help:
	@echo "make train                   train a small ResNeXt on digits, about a minute"
	@echo "make train EXP=NAME [DATA=PATH] [RUN=NAME] [ARGS='KEY=VALUE …']"
	@for name in $(basename $(notdir $(sort $(wildcard configs/experiment/*.yaml)))); do echo "           EXP=$$name"; done
	@echo "make check EXP=NAME [DATA=PATH] [ARGS='KEY=VALUE …']"
	@echo "                             images, memory, speed and hours, before training"
	@echo "make sweep EXP=NAME [RUN=NAME] ARGS='KEY=A,B,C sweep.KEY=VALUE …'"
	@echo "                             many runs as one: grids, searches, seeds"
	@echo "make study-cardinality       compare cardinality with depth and width"
	@echo "make slurm EXP=NAME NODES=4 GPUS=8 [DATA=PATH] [RUN=NAME] [ARGS='KEY=VALUE …']"
	@echo "                             the same as a SLURM job, requeued when needed"
	@echo "make status [RUN=runs/NAME]  all runs, or one: state, step, time left, job;"
	@echo "                             WATCH=1 refreshes until Ctrl-C"
	@echo "make resume [RUN=runs/NAME]  resume a run, by default the latest unfinished one"
	@echo "make report RUN=runs/NAME    write RUN/report.html: curves, mistakes, images"
	@echo "make evaluate RUN=runs/NAME [DATA=PATH]"
	@echo "                             accuracy, that of each class, and calibration"
	@echo "make predict RUN=runs/NAME DATA=PATH [ARGS='--output FILE']"
	@echo "                             the most likely classes of images, as CSV"
	@echo "make export RUN=runs/NAME ARGS='--format FORMAT'"
	@echo "                             the network for timm, torchvision, ONNX Runtime …"
	@echo "make publish RUN=runs/NAME ARGS='--repo OWNER/NAME [--send]'"
	@echo "                             show files for the Hugging Face Hub, or send them"
	@echo "make average RUN=runs/NAME [ARGS='--last N']"
	@echo "                             the mean of the checkpoints that the run has kept"
	@echo "make models                  our networks: parameters, MACs, the paper's error"
	@echo "make prepare ARGS='imagenet SRC DST'    write a dataset; also 'pack SRC DST',"
	@echo "                             cifar10, cifar100"
	@echo "make bench DATA=PATH         compare data loading with torchvision's and timm's"
	@echo "make test, make test-processes, make test-faults, make test-slurm"
	@echo "make lint, make format, make docs"

train: $(READY)
	@$(RESNEXT) train $(if $(EXP),experiment=$(EXP)) $(if $(RUN),$(call quoted,run,RUN)) $(at_data) $(ARGS)

check: $(READY)
	@$(RESNEXT) check $(if $(EXP),experiment=$(EXP)) $(at_data) $(ARGS)

# Without EXP and ARGS, goes on with the sweep RUN.
sweep: $(READY)
	@$(RESNEXT) sweep $(if $(EXP)$(ARGS),$(if $(EXP),experiment=$(EXP)) $(if $(RUN),$(call quoted,run,RUN)),"$$RUN") \
		$(at_data) $(ARGS)

# Compares cardinality with depth and width at equal parameters: on 200 digits, or on DATA (docs/cardinality.md).
study-cardinality: $(READY)
	@$(RESNEXT) sweep sweep=cardinality $(if $(RUN),$(call quoted,run,RUN)) \
		$(if $(DATA),data=image_folder recipe.image_size=32) $(at_data) $(ARGS)

# GPUS is the number of GPUs on each node, with one task for each GPU. Without GPUs, give ARGS=slurm.tasks_per_node=N.
slurm: $(READY)
	@$(RESNEXT) slurm $(if $(EXP),experiment=$(EXP)) $(if $(RUN),$(call quoted,run,RUN)) $(at_data) \
		$(if $(NODES),slurm.nodes=$(NODES)) $(if $(GPUS),slurm.gpus_per_node=$(GPUS)) $(ARGS)

status: $(READY)
	@$(RESNEXT) status $(if $(RUN),"$$RUN") $(if $(WATCH),--watch) $(ARGS)

resume: $(READY)
	@$(RESNEXT) resume $(if $(RUN),"$$RUN") $(at_data) $(ARGS)

report: $(READY)
	@$(RESNEXT) report "$$RUN" $(ARGS)

evaluate: $(READY)
	@$(RESNEXT) evaluate "$$RUN" $(if $(DATA),--data "$$DATA") $(ARGS)

predict: $(READY)
	@$(RESNEXT) predict "$$RUN" "$$DATA" $(ARGS)

export: $(READY)
	@$(RESNEXT) export "$$RUN" $(ARGS)

publish: $(READY)
	@$(RESNEXT) publish "$$RUN" $(ARGS)

average: $(READY)
	@$(RESNEXT) average "$$RUN" $(ARGS)

models: $(READY)
	@$(RESNEXT) models $(ARGS)

prepare: $(READY)
	@$(RESNEXT) prepare $(ARGS)

bench: $(READY)
	@$(RESNEXT) benchmark data --images "$$DATA" $(ARGS)

# Two processes, because most tests use one core. Each process runs whole test files, which share fixtures.
# A test that hangs fails after ten minutes, with the stack of each thread.
PYTEST = $(VENV)/bin/pytest -n 2 --dist loadfile -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

# With ARGS, also the tests of test-processes.
test: $(READY)
	@$(PYTEST) $(if $(ARGS),$(ARGS),-m "not processes")

# Tests that start several processes: ranks, or one command after another.
test-processes: $(READY)
	@$(PYTEST) -m processes $(ARGS)

# Tests with kills, full disks and lost processes.
test-faults: $(READY)
	@$(VENV)/bin/pytest tests/faults $(ARGS)

# Tests on a real cluster of seven nodes, which the tests start and remove; needs root on Debian or Ubuntu.
test-slurm: $(READY)
	@$(VENV)/bin/pytest tests/slurm -rs $(ARGS)

lint: $(READY)
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/basedpyright

format: $(READY)
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

# Draws docs/keys.md and the parts of docs/architecture.md that show the code, then builds the pages as a site in site/.
docs: $(READY)
	@$(VENV)/bin/python tests/support/architecture.py
	@$(VENV)/bin/python tests/support/keys.py
	@$(VENV)/bin/python -c 'import material' 2>/dev/null || \
		{ echo "docs needs mkdocs-material, which is not installed: $(VENV)/bin/pip install -e '.[docs]'" >&2; exit 2; }
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "site/index.html"

$(READY): pyproject.toml requirements.lock scripts/setup.sh
	@scripts/setup.sh $(VENV)
