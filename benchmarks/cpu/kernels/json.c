/* A JSON-like text: written from a random tree, tokenized and parsed by recursive descent. */
#include "kernel.h"

enum { TEXT = 60000 };
static char text[TEXT];
static char *out;
static const char *in;
static u32 budget;

static void put(const char *s) {
    while (*s) *out++ = *s++;
}

static void write_string(void) {
    *out++ = '"';
    for (u32 n = random_word() % 12; n--;) {
        u32 c = random_word() % 30;
        if (c < 26) *out++ = (char)('a' + c);
        else put(c == 26 ? "\\n" : c == 27 ? "\\\"" : c == 28 ? "\\u00e9" : " ");
    }
    *out++ = '"';
}

static void write_number(void) {
    char digits[12];
    u32 value = random_word() % 100000, n = 0;
    if (value & 1) *out++ = '-';
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) *out++ = digits[--n];
    if (random_word() % 3 == 0) put(".25");
}

static void write_value(u32 depth) {
    u32 kind = budget && depth < 9 ? random_word() % 8 : 2 + random_word() % 5;
    if (budget) budget--;
    switch (kind) {
    case 0: case 7:
        *out++ = '{';
        for (u32 n = random_word() % 7; n--;) {
            write_string();
            put(": ");
            write_value(depth + 1);
            if (n) put(", ");
        }
        *out++ = '}';
        break;
    case 1:
        *out++ = '[';
        for (u32 n = random_word() % 9; n--;) {
            write_value(depth + 1);
            if (n) put(",\n ");
        }
        *out++ = ']';
        break;
    case 2: put("true"); break;
    case 3: put("null"); break;
    case 4: case 5: write_number(); break;
    default: write_string();
    }
}

static void skip_spaces(void) {
    while (*in == ' ' || *in == '\n') in++;
}

static int accept(char c) {
    skip_spaces();
    if (*in != c) return 0;
    in++;
    return 1;
}

static u64 read_string(void) {
    u64 digest = 1;
    CHECK(*in == '"');
    for (in++; *in != '"'; in++) {
        u32 c = (u8)*in;
        if (c == '\\') {
            c = (u8)*++in;
            if (c == 'u') {
                c = 0;
                for (int i = 0; i < 4; i++) {
                    char hex = *++in;
                    c = c << 4 | (u32)(hex <= '9' ? hex - '0' : (hex | 32) - 'a' + 10);
                }
            }
        }
        digest = mixed(digest, c);
    }
    in++;
    return digest;
}

static u64 read_number(void) {
    int negative = *in == '-';
    s64 value = 0, scale = 1;
    for (in += negative; *in >= '0' && *in <= '9'; in++) value = value * 10 + (*in - '0');
    if (*in == '.')
        for (in++; *in >= '0' && *in <= '9'; in++, scale *= 10) value = value * 10 + (*in - '0');
    return bits_of((double)(negative ? -value : value) / (double)scale);
}

NOINLINE static u64 read_value(void) {
    u64 digest = 7;
    skip_spaces();
    switch (*in) {
    case '{':
        in++;
        if (accept('}')) return digest;
        do {
            skip_spaces();
            digest = mixed(digest, read_string());
            CHECK(accept(':'));
            digest = mixed(digest, read_value());
        } while (accept(','));
        CHECK(accept('}'));
        return digest;
    case '[':
        in++;
        if (accept(']')) return digest;
        do digest = mixed(digest + 1, read_value());
        while (accept(','));
        CHECK(accept(']'));
        return digest;
    case '"': return read_string();
    case 't': in += 4; return 2;
    case 'n': in += 4; return 3;
    default: return read_number();
    }
}

KERNEL(json, 790) {
    out = text;
    in = text;
    budget = 600;
    put("[");
    while (budget) {
        write_value(0);
        put(", ");
    }
    put("0]");
    *out = 0;
    CHECK(out < text + TEXT);
    u64 digest = read_value();
    CHECK(in == out);
    return digest;
}
