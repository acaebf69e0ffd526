/* Integer code of every kind a compiler makes: loops, calls, recursion, memory, division, function pointers. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

static u32 state = 12345;
static u8 sieve[2000];
static u16 halves[256];
static u32 words[256];
static u32 sums;

static __attribute__((noinline)) u32 next_random(void) {
  state = state * 1103515245u + 12345u;
  return state >> 8;
}

static __attribute__((noinline)) u32 fibonacci(u32 n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static __attribute__((noinline)) u32 ackermann(u32 m, u32 n) {
  return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static __attribute__((noinline)) u32 primes(void) {
  u32 count = 0;
  for (u32 i = 2; i < sizeof sieve; i++) {
    if (sieve[i]) continue;
    count++;
    for (u32 j = i * i; j < sizeof sieve; j += i) sieve[j] = 1;
  }
  return count;
}

static __attribute__((noinline)) u32 crc(const u8 *data, u32 length) {
  u32 sum = ~0u;
  for (u32 i = 0; i < length; i++) {
    sum ^= data[i];
    for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0);
  }
  return ~sum;
}

static __attribute__((noinline)) void sort(u32 *first, int count) {
  for (int i = 1; i < count; i++) {
    u32 value = first[i];
    int j = i;
    for (; j > 0 && first[j - 1] > value; j--) first[j] = first[j - 1];
    first[j] = value;
  }
}

#ifdef __alpha__
/* It has no instruction to divide with. */
static __attribute__((noinline)) u32 divide(u32 a, u32 b) {
  u32 quotient = 0;
  unsigned long rest = 0;
  for (int bit = 31; bit >= 0; bit--) {
    rest = rest << 1 | (a >> bit & 1);
    if (rest >= b) {
      rest -= b;
      quotient |= 1u << bit;
    }
  }
  return quotient;
}

static int divide_signed(int a, int b) {
  u32 quotient = divide(a < 0 ? -(u32)a : (u32)a, b < 0 ? -(u32)b : (u32)b);
  return (int)((a < 0) != (b < 0) ? -quotient : quotient);
}
#else
static u32 divide(u32 a, u32 b) { return a / b; }
static int divide_signed(int a, int b) { return a / b; }
#endif

static __attribute__((noinline)) u32 divisions(void) {
  u32 sum = 0;
  for (int i = 1; i < 300; i++) {
    int a = (int)(next_random() << 8), b = (int)(next_random() % 1000) - 500;
    if (b == 0) b = 7;
    u32 c = next_random();
    sum = sum * 31 + (u32)divide_signed(a, b) + (divide(c, (u32)i) ^ c);
  }
  return sum;
}

static u32 add(u32 a, u32 b) { return a + b; }
static u32 sub(u32 a, u32 b) { return a - b; }
static u32 rotate(u32 a, u32 b) { return a << (b & 31) | a >> (-b & 31); }
static u32 multiply(u32 a, u32 b) { return a * (b | 1); }
static u32 high(u32 a, u32 b) { return (u32)((unsigned long long)a * b >> 32); }
static u32 shift(u32 a, u32 b) { return (u32)((int)a >> (b & 31)); }

static u32 (*const operations[])(u32, u32) = {add, sub, rotate, multiply, high, shift};

static __attribute__((noinline)) u32 calls(void) {
  u32 value = 1;
  for (int i = 0; i < 600; i++) value = operations[next_random() % 6](value, next_random());
  return value;
}

static __attribute__((noinline)) u32 mixed(void) {
  u32 sum = 0;
  for (int i = 0; i < 256; i++) {
    halves[i] = (u16)next_random();
    words[i] = next_random();
  }
  sort(words, 256);
  for (int i = 0; i < 256; i++) sum = sum * 17 + words[i] + (u32)(short)halves[i] + (u32)(signed char)halves[i];
  switch (sum % 7) {
    case 0: sum += 3; break;
    case 1: sum ^= 0x55; break;
    case 2: sum -= 77; break;
    case 3: sum *= 5; break;
    case 4: sum = ~sum; break;
    default: sum <<= 1;
  }
  return sum;
}

static __attribute__((noinline)) void print(u32 value) {
  char text[9];
  for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
  text[8] = '\n';
  write_out(text, 9);
  sums = sums * 3 + value;
}

void run(void) {
  print(fibonacci(15));
  print(ackermann(2, 9));
  print(primes());
  print(divisions());
  print(calls());
  print(mixed());
  print(crc((const u8 *)words, sizeof words));
  print(sums);
  leave();
}
