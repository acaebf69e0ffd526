"""The monitor's start in a process of its own: `python -I …/__main__.py FD`, FD being the control channel.

Isolated Python takes no code from the caller's directory or environment, so this file says where
the package is.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 3)[0])
    from anyvirt.monitor.build import build_machine
    from anyvirt.monitor.server import serve

    serve(int(sys.argv[1]), build_machine)
