"""Fault drills: the switch of the DSN is broken on purpose, and what stands afterwards is judged from outside."""
