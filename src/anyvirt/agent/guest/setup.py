"""Requests that make the guest's world: directories, files, mounts, modules, the root, name and network.

Each returns an error number (errno(3)), or 0.
"""

from anyvirt.agent.guest.channel import pause
from anyvirt.agent.guest.parsing import text_behind
from anyvirt.agent.guest.state import Agent
from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, length
from anyvirt.typed import (
    load8,
    load32,
    load64,
    range,
    s64,
    store8,
    store16,
    store32,
    store64,
    u8,
    u16,
    u32,
    u64,
)

_HERE = -100  # AT_FDCWD
_READ_ONLY = 0o2000000  # O_RDONLY | O_CLOEXEC
_EXISTS, _NO_ENTRY, _NO_DEVICE, _NO_ADDRESS = -17, -2, -19, -6
_MOVE = 8192  # MS_MOVE
_DETACH = 2  # MNT_DETACH
_PATIENCE = 10
_DIRECTORY_MODE = 0o755
_PATH_LIMIT = 2048
_INTERNET, _DATAGRAMS = 2, 0o2000002  # AF_INET, SOCK_DGRAM | SOCK_CLOEXEC
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914  # SIOCGIFFLAGS, SIOCSIFFLAGS
_INTERFACE_NAME = 16  # IFNAMSIZ, and where the flags are in struct ifreq
_SET_ADDRESS, _SET_MASK, _ADD_ROUTE = 0x8916, 0x891C, 0x890B  # SIOCSIFADDR, SIOCSIFNETMASK, SIOCADDRT
_IS_UP = 1  # IFF_UP
_ROUTE_SIZE = 120  # struct rtentry
_DESTINATION, _GATEWAY, _MASK, _ROUTE_FLAGS, _ROUTE_DEVICE = 8, 24, 40, 56, 88
_UP_BY_GATEWAY = 3  # RTF_UP | RTF_GATEWAY
_NEW_FILE = 0o2000301  # O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC


def make_directory(path: u64, mode: u64) -> u64:
    """Make a directory and those above it. The path in the request is changed on the way and back."""
    place = path + 1
    while load8(path) != 0 and load8(place) != 0:
        if load8(place) == 47:  # a slash
            store8(place, u8(0))
            system_call("mkdirat", s64(_HERE), path, _DIRECTORY_MODE)
            store8(place, u8(47))
        place += 1
    result = system_call("mkdirat", s64(_HERE), path, mode)
    return u64(0) if result == _EXISTS else error_of(result)


def make_link(target: u64, path: u64) -> u64:
    """Make a symbolic link."""
    return error_of(system_call("symlinkat", target, s64(_HERE), path))


def mount(agent: u64, flags: u64, wait: u64, source: u64) -> u64:
    """Mount what four texts say. A device that is not there yet is waited for, `wait` milliseconds."""
    target = text_behind(source)
    kind = text_behind(target)
    options = text_behind(kind)
    waited = u64(0)
    while True:
        result = system_call("mount", source, target, kind, flags, options)
        is_missing = result in (_NO_ENTRY, _NO_DEVICE, _NO_ADDRESS)
        if not is_missing or waited >= wait:
            return error_of(result)
        pause(agent, u64(_PATIENCE))
        waited += _PATIENCE


def load_module(path: u64) -> u64:
    """Load the module in the file `path` with the parameters that the text behind it says."""
    file = system_call("openat", s64(_HERE), path, _READ_ONLY, 0)
    if file < 0:
        return error_of(file)
    result = system_call("finit_module", file, text_behind(path), 0)
    system_call("close", file)
    return u64(0) if result == _EXISTS else error_of(result)


def switch_root(agent: u64, path: u64) -> u64:
    """Make `path` the root, as switch_root(8): the initial file system can neither be left nor unmounted."""
    if length(path) > _PATH_LIMIT:
        return u64(36)  # ENAMETOOLONG
    _move(agent, text(b"/dev"), path)
    _move(agent, text(b"/proc"), path)
    _move(agent, text(b"/sys"), path)
    _move(agent, text(b"/run"), path)
    result = system_call("chdir", path)
    if result == 0:
        result = system_call("mount", text(b"."), text(b"/"), 0, _MOVE, 0)
    if result == 0:
        result = system_call("chroot", text(b"."))
    if result == 0:
        result = system_call("chdir", text(b"/"))
    return error_of(result)


def _move(agent: u64, directory: u64, root: u64) -> None:
    """Move a mount below the new root, or let it go where that has no such directory."""
    target = load64(agent + Agent.SCRATCH)
    append(append(target, root), directory)
    system_call("mkdirat", s64(_HERE), target, _DIRECTORY_MODE)
    if system_call("mount", directory, target, 0, _MOVE, 0) < 0:
        system_call("umount2", directory, _DETACH)


def set_host_name(name: u64) -> u64:
    """Set the guest's host name."""
    return error_of(system_call("sethostname", name, length(name)))


def raise_interface(agent: u64, name: u64) -> u64:
    """Set the flag of a network interface that it is up (netdevice(7))."""
    if length(name) >= _INTERFACE_NAME:
        return u64(36)  # ENAMETOOLONG
    socket = system_call("socket", _INTERNET, _DATAGRAMS, 0)
    if socket < 0:
        return error_of(socket)
    request = load64(agent + Agent.SCRATCH)
    append(request, name)
    result = system_call("ioctl", socket, _GET_FLAGS, request)
    if result == 0:
        flags = request + _INTERFACE_NAME
        store8(flags, load8(flags) | _IS_UP)
        result = system_call("ioctl", socket, _SET_FLAGS, request)
    system_call("close", socket)
    return error_of(result)


def set_address(agent: u64, address: u64, name: u64) -> u64:
    """Give an interface the address and the mask that are at `address` (netdevice(7))."""
    if length(name) >= _INTERFACE_NAME:
        return u64(36)  # ENAMETOOLONG
    socket = system_call("socket", _INTERNET, _DATAGRAMS, 0)
    if socket < 0:
        return error_of(socket)
    request = load64(agent + Agent.SCRATCH)
    append(request, name)
    _store_address(request + _INTERFACE_NAME, load32(address))
    result = system_call("ioctl", socket, _SET_ADDRESS, request)
    if result == 0:
        _store_address(request + _INTERFACE_NAME, load32(address + 4))
        result = system_call("ioctl", socket, _SET_MASK, request)
    system_call("close", socket)
    return error_of(result)


def add_gateway(agent: u64, address: u64, name: u64) -> u64:
    """Add the route for all that has no other (rtnetlink is not needed: SIOCADDRT does it)."""
    socket = system_call("socket", _INTERNET, _DATAGRAMS, 0)
    if socket < 0:
        return error_of(socket)
    route = load64(agent + Agent.SCRATCH)
    for word in range(u64(_ROUTE_SIZE // 8)):
        store64(route + word * 8, u64(0))
    _store_address(route + _DESTINATION, u32(0))
    _store_address(route + _GATEWAY, load32(address))
    _store_address(route + _MASK, u32(0))
    store16(route + _ROUTE_FLAGS, u16(_UP_BY_GATEWAY))
    store64(route + _ROUTE_DEVICE, name)
    result = system_call("ioctl", socket, _ADD_ROUTE, route)
    system_call("close", socket)
    return error_of(result)


def _store_address(place: u64, address: u32) -> None:
    """A struct sockaddr_in without a port."""
    store64(place, u64(_INTERNET))
    store64(place + 8, u64(0))
    store32(place + 4, address)


def write_file(path: u64, mode: u64) -> u64:
    """Write the text behind `path` into a new file there."""
    content = text_behind(path)
    system_call("unlinkat", s64(_HERE), path, 0)
    file = system_call("openat", s64(_HERE), path, _NEW_FILE, mode)
    if file < 0:
        return error_of(file)
    size = length(content)
    written = u64(0)
    result = s64(0)
    while written < size and result >= 0:
        result = system_call("write", file, content + written, size - written)
        if result >= 0:
            written += u64(result)
    system_call("close", file)
    return error_of(result)


def error_of(result: s64) -> u64:
    """The error number of a system call's result."""
    return u64(-result) if result < 0 else u64(0)
