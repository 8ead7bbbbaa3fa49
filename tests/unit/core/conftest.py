"""The runner of Ansible's modules."""

from unit.host_modules import run_host_module as run_host_module
