"""Attacks of an unprivileged user on root, who works in that user's directories. Needs root and nothing else."""
