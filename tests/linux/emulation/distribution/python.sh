# Python: numbers, processes, signals, sockets, what it finds of the system.
cat > /tmp/program.py << 'PYTHON'
import hashlib, itertools, math, os, select, signal, socket, struct, subprocess, sys, time, warnings
warnings.simplefilter("error", DeprecationWarning)
print(sys.byteorder, sys.maxsize)
def primes(n):
    f = bytearray([1]) * n
    for i in range(2, int(n ** .5) + 1):
        if f[i]: f[i*i::i] = bytes(len(range(i*i, n, i)))
    return sum(f) - 2
print(primes(200000), 2 ** 1000 % (10 ** 9 + 7), math.pi, math.sqrt(2), 0.1 + 0.2, 1e22, float("nan"))
print(list(itertools.islice((a * a for a in itertools.count()), 5)), "é".encode(), f"{3.14159:.2f}")
print([f(x / 7) for f in (math.sin, math.exp, math.lgamma, math.atan) for x in range(1, 5)])
r, w = os.pipe()
sys.stdout.flush()
if os.fork() == 0:
    os.write(w, b"child"); os._exit(4)
print(os.wait()[1] >> 8, os.read(r, 99))
signal.signal(signal.SIGALRM, lambda *a: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, .05)
time.sleep(.2)
print(os.popen("echo $((1+2))").read(), os.uname().sysname, os.getuid())
print(os.path.realpath("/proc/self/exe"), os.stat("/dev/null").st_rdev, os.cpu_count() > 0)
print(hashlib.sha256(b"x" * 100000).hexdigest(), struct.pack("<d", 1.5))
a, b = socket.socketpair()
a.send(b"hi")
print(select.select([b], [], [], 1)[0] == [b], b.recv(9))
print(subprocess.run(["echo", "sub"], capture_output=True).stdout)
print(subprocess.run(["sh", "-c", "cat; exit 3"], input=b"in", capture_output=True))
try:
    subprocess.run(["/no/such/program"])
except FileNotFoundError as error:
    print(error)
with open("/tmp/data", "w") as file:
    for number in range(100000):
        print(number * number, file=file)
print(sum(int(line) for line in open("/tmp/data")))
try:
    1 / 0
except ZeroDivisionError as error:
    print(error)
PYTHON
python3.13 /tmp/program.py
