# Everything that a person or a script does with this project. Every target sets up what it needs.
STACK ?= local
NAME ?=
PORT ?= 4002
LISTEN ?=
PYTEST_ARGS ?=
IMAGE ?=
BASE ?=
REGISTRY ?=
DECISIONS ?=
BACKUP ?=
LOGIN ?=

# Without bytecode every process would compile what it imports anew, Pulumi's SDKs above all.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env up preview drift destroy refresh demo status verify logs tunnel output token cost image rollback restore login dashboard test pictures bench soak lint lock docs clean setup

python := $(shell command -v python3 || command -v python3.13 || command -v python3.12 || command -v python3.11)
ifeq ($(python),)
$(error Python isn't on PATH. Install Python 3.11, 3.12 or 3.13 (apt install python3, dnf install python3))
endif
venv := .venv/bin/python
stack = @$(venv) -m tools.stack $@ --stack '$(STACK)' $(if $(YES),--yes) $(if $(VERBOSE),--verbose)
# On a terminal logs of the local stack are followed unless FOLLOW=0, others with FOLLOW=1 (gcloud's beta).
follow = $(if $(filter 0 no,$(FOLLOW)),,$(if $(FOLLOW),--follow,$(if $(filter local,$(STACK)),$$([ -t 1 ] && echo --follow))))
ready := @$(python) -m tools.setup
ready_with_cli := $(ready) --pulumi

help:
	@echo "make up        bring the stack up (STACK=local by default: no account needed; VERBOSE=1: every line)"
	@echo "make demo      a guided tour: an account connected, traded, killed, recovered, deleted"
	@echo "make test      run every test"
	@echo "make preview   show what up would do"
	@echo "make drift     fail if anything isn't as the last up left it"
	@echo "make status    what runs, and how it is (NAME=part; JSON=1)"
	@echo "make verify    try the gateway: live orders leave only through one that has passed (NAME=live: the second);"
	@echo "               and what is deployed, the dashboard, and with LOGIN=file (or -) a droplet's whole life"
	@echo "make logs      follow the service, a gateway or a droplet (NAME=service; FOLLOW=0: its end only)"
	@echo "make tunnel    reach a machine's port from here (NAME= PORT=4002 LISTEN=127.0.0.1:PORT)"
	@echo "make token     a bearer token for the local stack (make -s token)"
	@echo "make dashboard a link that opens the dashboard, logged in"
	@echo "make login     a paper login at the local exchange, as connect wants it (make -s login)"
	@echo "make output    one stack output (make -s output NAME=service_url)"
	@echo "make env       what a shell needs to run pulumi by hand: eval \"\$$(make -s env)\""
	@echo "make cost      what a stack costs a month (STACK=staging BASE=commit: the difference)"
	@echo "make image     build the service's image, push it, name it by digest (STACK=staging)"
	@echo "make rollback  back to Alpaca, once what becomes of each order at IBKR is said (DECISIONS=)"
	@echo "make restore   the database's backups, or one of them put back (BACKUP=)"
	@echo "make refresh   compare the state with what there is"
	@echo "make destroy   take everything away (YES=1: stacks other than local don't ask)"
	@echo "make pictures  the dashboard's pages and states as pictures (.local/screenshots, docs/pictures)"
	@echo "make bench     measure"
	@echo "make soak      1,000 random fault schedules over each broker and the fleet (SOAK_ARGS)"
	@echo "make lint      ruff, mypy, hadolint; actionlint and zizmor for the workflows"
	@echo "make lock      lock the requirements anew"
	@echo "make docs      write the references of settings and API anew (docs/settings.md, docs/api.md)"
	@echo "make clean     remove what was set up in this folder (after make destroy)"

setup:
	$(ready_with_cli)

demo:
	$(ready_with_cli)
	$(stack)

up preview drift refresh destroy:
	$(ready_with_cli)
	$(stack) --image '$(IMAGE)'

env:
	$(ready_with_cli)
	$(stack)

status output:
	$(ready_with_cli)
	$(stack) --name '$(NAME)' $(if $(JSON),--json)

logs:
	$(ready)
	$(stack) --name '$(NAME)' $(follow)

token login dashboard:
	$(ready)
	$(stack) --name '$(NAME)'

verify:
	$(ready)
	$(stack) --name '$(NAME)' --login '$(LOGIN)'

tunnel:
	$(ready)
	$(stack) --name '$(NAME)' --port '$(PORT)' --listen '$(LISTEN)'

cost:
	$(ready)
	@$(venv) -m tools.cost --stack '$(STACK)' --base '$(BASE)'

rollback:
	$(ready_with_cli)
	$(stack) --decisions '$(DECISIONS)'

restore:
	$(ready_with_cli)
	$(stack) --backup '$(BACKUP)'

image:
	$(ready_with_cli)
	@$(venv) -m tools.image --stack '$(STACK)' --registry '$(REGISTRY)'

test:
	$(ready_with_cli) --ib-async
	@$(venv) -m tools.run_tests $(PYTEST_ARGS)

pictures:
	$(ready_with_cli)
	@$(venv) -m tools.pictures

bench:
	$(ready_with_cli)
	@$(venv) -m benchmarks $(BENCH_ARGS)

soak:
	$(ready)
	@$(venv) -m soak $(SOAK_ARGS)

lint:
	$(ready)
	@$(venv) -m tools.lint

lock:
	$(ready)
	@$(venv) -m tools.lock

docs:
	$(ready)
	@$(venv) -m tools.reference

clean:
	@if [ -e .local/state ] || [ -e .local/cloud ]; then $(MAKE) --no-print-directory destroy STACK=local; fi
	rm -rf .local .venv .venv-ib-async .mypy_cache .ruff_cache .pytest_cache .hypothesis
