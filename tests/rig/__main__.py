"""`python -m rig COMMAND`: what the Makefile calls."""

from __future__ import annotations

import argparse
import sys

from rig import engine, images, subject, suites, world
from rig.shell import RigError


def main() -> int:
    """Run one command; 1 with one sentence on failure."""
    parser = argparse.ArgumentParser(prog="rig", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in (
        "test",
        "demo",
        "check",
        "later-phases",
        "repeat",
        "rollback",
        "operator",
        "contract",
        "contract-empty",
        "mutations",
        "mutations-short",
        "molecule",
        "topology",
        "drills",
        "drills-short",
        "drills-part",
        "drills-table",
        "registry",
        "up",
        "down",
        "topology-up",
        "topology-down",
        "clean",
        "distclean",
    ):
        commands.add_parser(name)
    listing = commands.add_parser("images", help="build the images of the rig")
    listing.add_argument("--print", dest="name", help="print the full name of one image")
    options = parser.parse_args()
    try:
        if options.command == "test":
            from rig import gate

            gate.test()
        elif options.command in {"demo", "check", "later-phases", "repeat", "rollback"}:
            from rig import demo

            getattr(demo, options.command.replace("-", "_"))()
        elif options.command == "operator":
            from rig import operator

            operator.operator()
        elif options.command in {
            "contract",
            "contract-empty",
            "mutations",
            "mutations-short",
            "molecule",
            "topology",
        }:
            getattr(suites, options.command.replace("-", "_"))()
        elif options.command in {"drills", "drills-short", "drills-part", "drills-table"}:
            from rig import drills

            getattr(drills, options.command.replace("-", "_"))()
        elif options.command == "registry":
            engine.ensure()
            images.build_all(["registry", "postgres", "valkey", *subject.standins()])
            world.ensure_network()
            world.ensure_registry()
        elif options.command == "up":
            from rig import demo

            demo.prepare_world()
        elif options.command == "down":
            world.remove_server()
        elif options.command in {"topology-up", "topology-down"}:
            from rig import topology

            getattr(topology, options.command.removeprefix("topology-"))()
        elif options.command == "images":
            engine.ensure()
            names = [options.name] if options.name else list(images.IMAGES)
            images.build_all(names)
            if options.name:
                print(images.tag(options.name))
        elif engine.answers():
            world.remove()
            if options.command == "distclean":
                images.remove_all()
    except RigError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"{options.command}: interrupted; what the server does goes on, run again to continue",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
