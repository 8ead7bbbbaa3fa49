"""Checks of an operator's inventory, on the controller and before any host is asked.

Used by the action plugin of role preflight. Every check returns sentences without secrets: what is wrong, in which
file, and what to do.
"""
