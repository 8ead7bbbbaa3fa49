"""What the cutover program, the operator tools and Ansible modules share: standard library only.

Imports are relative, so that the package also works as Ansible's module_utils; the cutover's zipapp packs it.
"""
