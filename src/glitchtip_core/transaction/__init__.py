"""A journalled transaction on the host: what must survive a dropped session, a Ctrl-C, a kill and a power cut.

Every act is on the disk before it begins (``journal``). Whatever stops a run, the next one, or the recovery unit at boot, reads
from there what has to be put back (``state``, the only interpreter). One run at a time (``store``), detached from its caller
(``detached``); a change that nobody confirms is taken back by a timer (``detached``).

Clients pass in what they change: their steps, the kinds of their records, their directory, the names of their units and the texts
for people. Nothing in here knows what is changed.
"""
