/* A backtracking matcher of regular expressions: characters, `.`, classes, `*`, `+`, `?`, `|` at the top. */
#include "kernel.h"

enum { TEXT = 1500 };
static char text[TEXT];

/* The end of the atom that begins at p: [abc], \x or one character. */
static const char *atom_end(const char *p) {
    if (*p == '\\') return p + 2;
    if (*p != '[') return p + 1;
    while (*p != ']') p++;
    return p + 1;
}

static int atom_matches(const char *p, const char *end, char c) {
    if (!c) return 0;
    if (*p == '.') return 1;
    if (*p == '\\') return p[1] == c;
    if (*p != '[') return *p == c;
    int inverted = p[1] == '^', found = 0;
    for (p += 1 + inverted; p < end - 1; p++) {
        if (p[1] == '-' && p + 2 < end - 1) {
            found |= p[0] <= c && c <= p[2];
            p += 2;
        } else
            found |= *p == c;
    }
    return found != inverted;
}

NOINLINE static const char *match(const char *p, const char *s) {
    if (!*p || *p == '|') return s;
    const char *end = atom_end(p);
    if (*end == '*' || *end == '+') {
        const char *last = s;
        while (atom_matches(p, end, *last)) last++;
        for (const char *least = s + (*end == '+'); last >= least; last--) {
            const char *result = match(end + 1, last);
            if (result) return result;
        }
        return 0;
    }
    if (atom_matches(p, end, *s)) {
        const char *result = match(*end == '?' ? end + 1 : end, s + 1);
        if (result) return result;
    }
    return *end == '?' ? match(end + 1, s) : 0;
}

static const char *match_any(const char *p, const char *s) {
    for (;; p++) {
        const char *result = match(p, s);
        if (result) return result;
        while (*p && *p != '|') p = atom_end(p);
        if (!*p) return 0;
    }
}

KERNEL(expressions, 37) {
    static const char *const patterns[] = {
        "[a-c]+d", "a.*b.*c.*dd", "(\\.|x", "[^ab]+a?b?c", "ab*c+d|dc*b+a", "a?b?c?d?dcba", "[a-d]*c[a-d]*x",
    };
    u64 digest = 0;
    for (u32 i = 0; i < TEXT - 1; i++) text[i] = random_word() % 25 ? (char)('a' + random_word() % 4) : ' ';
    for (u32 i = 40; i < TEXT - 1; i += 41) text[i] = ' ';
    text[TEXT - 1] = 0;
    for (const char *word = text; *word;) {
        char *end = (char *)word;
        while (*end && *end != ' ') end++;
        char kept = *end;
        *end = 0;
        for (u32 k = 0; k < ITEMS(patterns); k++)
            for (const char *at = word; *at; at++) {
                const char *result = match_any(patterns[k], at);
                if (result) digest = mixed(digest, (u64)(result - text) * 8 + k);
            }
        *end = kept;
        word = kept ? end + 1 : end;
    }
    return digest;
}
