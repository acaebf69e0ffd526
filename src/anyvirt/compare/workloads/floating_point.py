"""Floating-point arithmetic: the sun and four planets under gravity, 200 steps in each round.

Each round starts from the same state (lengths in astronomical units, times in years) and must reach exactly
the energy known for its end: all operations are IEEE 754 double precision, in one order.
"""

from anyvirt.compare.workloads.runtime import allocate, begin, finish
from anyvirt.jit.system import text
from anyvirt.typed import bits, f64, loadf64, range, sqrt, storef64, u64

BODIES = 5
STEPS = 200
STEP = 0.01
_BODY_SIZE = 56
_VELOCITY = 24
_MASS = 48
_YEAR = 365.24
_PI = 3.141592653589793
_SOLAR_MASS = 4 * _PI * _PI

# For each body: position (AU), velocity (AU per day), mass (suns).
_BODIES = (
    ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0),
    (  # Jupiter
        (4.84143144246472, -1.1603200440274, -0.10362204447112),
        (1.66007664274e-3, 7.69901118420e-3, -6.904600170e-5),
        9.5479193842e-4,
    ),
    (  # Saturn
        (8.3433667182446, 4.1247985641243, -0.4035234171143),
        (-2.76742510726e-3, 4.99852801235e-3, 2.3041729757e-5),
        2.8588598067e-4,
    ),
    (  # Uranus
        (12.894369562139, -15.111151401699, -0.2233075788927),
        (2.96460137565e-3, 2.37847173959e-3, -2.9658956854e-5),
        4.3662440434e-5,
    ),
    (  # Neptune
        (15.379697114851, -25.919314609988, 0.1792587729504),
        (2.68067772490e-3, 1.62824170038e-3, -9.5159225452e-5),
        5.1513890205e-5,
    ),
)


def _initial_state() -> tuple[f64, ...]:
    """Positions, velocities (AU per year) and masses of all bodies, with the centre of mass at rest."""
    momentum = [0.0, 0.0, 0.0]
    for _, velocity, mass in _BODIES:
        momentum = [sum_ + speed * mass for sum_, speed in zip(momentum, velocity, strict=True)]
    state: list[float] = []
    for index, (position, velocity, mass) in enumerate(_BODIES):
        drift = momentum if index == 0 else (0.0, 0.0, 0.0)
        speeds = [(speed - less) * _YEAR for speed, less in zip(velocity, drift, strict=True)]
        state += [*position, *speeds, mass * _SOLAR_MASS]
    return tuple(f64(value) for value in state)


INITIAL_STATE = _initial_state()
FINAL_ENERGY = u64(0xBFC5A2AC7A3FEAF3)
"""The encoding of the energy after STEPS steps."""


def main(count: u64, arguments: u64) -> u64:
    """Integrate from the initial state once in each round."""
    rounds = begin(text(b"floating-point "), count, arguments)
    bodies = allocate(u64(BODIES * _BODY_SIZE))
    wrong = u64(0)
    for _ in range(rounds):
        place(bodies)
        for _step in range(u64(STEPS)):
            advance(bodies, f64(STEP))
        if bits(energy(bodies)) != FINAL_ENERGY:
            wrong += 1
    return finish(wrong, rounds)


def place(bodies: u64) -> None:
    """Write the initial state."""
    for index in range(u64(0), u64(BODIES * 7)):
        storef64(bodies + index * 8, INITIAL_STATE[index])


def advance(bodies: u64, step: f64) -> None:
    """One step: velocities from all pairs' attraction, then positions from velocities."""
    end = bodies + BODIES * _BODY_SIZE
    for first in range(bodies, end, _BODY_SIZE):
        for second in range(first + _BODY_SIZE, end, _BODY_SIZE):
            attract(first, second, step)
    for body in range(bodies, end, _BODY_SIZE):
        for axis in range(u64(0), u64(24), 8):
            position = loadf64(body + axis) + step * loadf64(body + axis + _VELOCITY)
            storef64(body + axis, position)


def attract(first: u64, second: u64, step: f64) -> None:
    """Change the velocities of two bodies by their attraction."""
    dx = loadf64(first) - loadf64(second)
    dy = loadf64(first + 8) - loadf64(second + 8)
    dz = loadf64(first + 16) - loadf64(second + 16)
    squared = dx * dx + dy * dy + dz * dz
    magnitude = step / (squared * sqrt(squared))
    push(first, dx, dy, dz, -(loadf64(second + _MASS) * magnitude))
    push(second, dx, dy, dz, loadf64(first + _MASS) * magnitude)


def push(body: u64, dx: f64, dy: f64, dz: f64, factor: f64) -> None:
    """Add `factor` times a direction to a body's velocity."""
    storef64(body + _VELOCITY, loadf64(body + _VELOCITY) + dx * factor)
    storef64(body + _VELOCITY + 8, loadf64(body + _VELOCITY + 8) + dy * factor)
    storef64(body + _VELOCITY + 16, loadf64(body + _VELOCITY + 16) + dz * factor)


def energy(bodies: u64) -> f64:
    """Kinetic plus potential energy of all bodies."""
    total = f64(0.0)
    end = bodies + BODIES * _BODY_SIZE
    for first in range(bodies, end, _BODY_SIZE):
        vx, vy, vz = loadf64(first + 24), loadf64(first + 32), loadf64(first + 40)
        mass = loadf64(first + _MASS)
        total += f64(0.5) * mass * (vx * vx + vy * vy + vz * vz)
        for second in range(first + _BODY_SIZE, end, _BODY_SIZE):
            dx = loadf64(first) - loadf64(second)
            dy = loadf64(first + 8) - loadf64(second + 8)
            dz = loadf64(first + 16) - loadf64(second + 16)
            total -= mass * loadf64(second + _MASS) / sqrt(dx * dx + dy * dy + dz * dz)
    return total
