"""The throwaway world of `make demo` and of the Molecule scenarios: engine, images, registry, "Sentry" and a small server."""
