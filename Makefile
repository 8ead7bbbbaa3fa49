# Sentry SaaS to self-hosted GlitchTip: `make demo` shows the whole walk, `make test` proves it. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv/bin
RIG := PYTHONPATH=tests:tests/standin:src $(VENV)/python -m rig
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections

.PHONY: help setup setup-tests setup-python demo demo-repeat demo-rollback operator test unit lint integration contract contract-empty mutations mutations-short bench drills drills-short proof attack molecule topology clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

setup: ## everything that the other targets need (idempotent, seconds the second time)
	@$(PYTHON) tests/rig/setup.py

setup-tests:
	@$(PYTHON) tests/rig/setup.py --tests

setup-python: ## only the Python environment and the collections (no root, no engine)
	@$(PYTHON) tests/rig/setup.py --venv

demo: setup ## a throwaway server goes from Sentry to GlitchTip, phase 0 to phase 5
	@$(RIG) demo

demo-repeat: setup ## all phases again there: nothing may change, then --check --diff of every phase
	@$(RIG) repeat

demo-rollback: setup ## the way back there: every service reports to Sentry again
	@$(RIG) rollback

operator: setup ## there and back three times on a server unlike the demo's (nvm, cluster, npm start, sudo password ...): fails on any false proof (long; not in `make test`)
	@$(RIG) operator

test: setup-tests ## everything, from nothing: lint and all tests, two parts at a time
	@$(RIG) test

lint: setup-python ## ansible-lint, yamllint, ruff, mypy
	@$(VENV)/ruff check --quiet .
	@$(VENV)/mypy --no-error-summary
	@$(VENV)/yamllint --strict .
	@$(VENV)/ansible-lint --offline -q

unit: setup-python ## fast tests: no engine, no network
	@$(VENV)/python -m pytest -q -n 2 --dist worksteal -m "not slow" tests/unit

integration: setup-tests ## tests with real processes (PM2, Node.js, sockets), and the slow ones of tests/unit
	@$(VENV)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/integration
	@$(VENV)/python -m pytest -q -n 2 --dist load -m slow $$(grep -rl --include='test_*.py' 'mark\.slow' tests/unit)

contract: $(if $(GLITCHTIP_URL),setup-python,setup) ## the rules that we rely on, held against the stand-in in both modes (GLITCHTIP_URL=... any server: docs/contract.md)
	@$(RIG) contract

contract-empty: setup-python ## the rules of a server on which no user exists yet (GLITCHTIP_URL=...); `make contract` includes them
	@$(RIG) contract-empty

mutations: setup-tests ## break the stand-in in small ways: the contract suite must notice (table at the end)
	@$(RIG) mutations

mutations-short: setup-tests
	@$(RIG) mutations-short

bench: setup-tests ## a hundred projects provisioned in five ways; what the mirror costs; cutover and rollback at 20 events/s: seconds, longest gap, nothing lost; memory and the backlog of a stopped worker
	@PYTHONPATH=tests:tests/standin:src $(VENV)/python -m bench.provision
	@PYTHONPATH=tests:tests/standin:src $(VENV)/python -m bench.mirror
	@PYTHONPATH=tests:tests/standin:src $(VENV)/python -m bench.cutover
	@PYTHONPATH=tests:tests/standin:src $(VENV)/python -m bench.backlog

drills: setup ## faults on a throwaway server (power cuts, kill -9, trackers that fail ...), each with its negative control
	@$(RIG) drills

drills-short: setup
	@$(RIG) drills-short

attack: setup-python ## an unprivileged user attacks root, who works in that user's directories: every measured name in five ways, each with its negative control (needs root; minutes)
	@PYTHONPATH=tests:tests/standin:src $(VENV)/python -m attack

proof: setup-python ## what real SDKs send is read back, from any server: PROOF="--url ... --token-file ..." (docs/local_test.md)
	@PYTHONPATH=src $(VENV)/python -m glitchtip_ops local-test --no-stack --result=artifacts/proof.json --markdown=artifacts/proof.md $(PROOF)

molecule: setup ## roles and the whole walk on throwaway servers (SCENARIOS=default,docker: some of them)
	@$(RIG) molecule

topology: setup ## two servers of the product, GlitchTip on a third: the walk, the tunnel between them, and the way back (15 minutes; not in `make test`)
	@$(RIG) topology

clean: ## remove containers, volumes and networks that these targets made
	@[ ! -x $(VENV)/python ] || $(RIG) clean

distclean: ## clean, and the images too
	@[ ! -x $(VENV)/python ] || $(RIG) distclean
