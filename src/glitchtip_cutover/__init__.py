"""Switch of a product's DSN from one error tracker to another: one journalled transaction on the host.

Standard library only: the way back has to work with nothing but the system's Python, without a virtual
environment, a network or a controller. It is shipped as one zipapp and run by ``/usr/bin/python3 -I`` as
root.
"""

from __future__ import annotations

__version__ = "1.0.0"
