"""The emulator's start in a process of its own: `python -I -S …/__main__.py PROGRAM …`.

Isolated (-I) and without site packages (-S) Python starts in half the time and no file near the guest can
change it; so this file has to say where the package is.
"""

import gc
import sys

if __name__ == "__main__":
    # Nothing that starting makes is garbage.
    gc.disable()
    # The directory that holds `anyvirt`; importing pathlib to say so would cost milliseconds.
    sys.path.append(__file__.rsplit("/", 4)[0])
    from anyvirt.linux.emulation import main

    main.main(sys.argv[1:])
