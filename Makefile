# The project's commands, for an activated virtual environment with maskfree[dev,docs]; CI calls these.
export OMP_NUM_THREADS ?= 1

.PHONY: help lint format test test-slow gpu-check tables check-tables pictures docs ci

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

lint: check-tables ## ruff, format, pyright, the layers, the generated tables
	ruff check .
	ruff format --check .
	pyright
	PYTHONPATH=src:. lint-imports

format: ## let ruff rewrite what it can
	ruff check --fix .
	ruff format .

test: ## the unit tests
	pytest -n 2

test-slow: ## every test that needs no accelerator
	pytest -n 2 -m "not gpu"

gpu-check: ## one GPU: memory and photos a second of each paper's recipe, in six minutes
	PYTHONPATH=src timeout 360 python benchmarks/gpu_check.py

tables: ## write the tables of README and docs/ from results/*.json
	python -m studies.tables

check-tables: ## fail if a table in README or docs/ is not what results/*.json says
	python -m studies.tables --check

pictures: ## make the pictures of README and docs/ from examples/ with the bundled model
	python docs/pictures.py

docs: check-tables ## build the pages into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

ci: ## everything, in fresh virtual environments
	bash .ci/run
