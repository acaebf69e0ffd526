/* Zero-terminated strings: length, comparison, search for characters and for strings, copying, splitting. */
#include "kernel.h"

enum { TEXT = 6000 };
static char text[TEXT], copy[TEXT];

NOINLINE static size_t length(const char *s) {
    const char *end = s;
    while (*end) end++;
    return (size_t)(end - s);
}
NOINLINE static int compare(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return (u8)*a - (u8)*b;
}
NOINLINE static const char *find_character(const char *s, char c) {
    for (; *s; s++)
        if (*s == c) return s;
    return 0;
}
NOINLINE static const char *find(const char *s, const char *wanted) {
    for (; *s; s++) {
        const char *a = s, *b = wanted;
        while (*b && *a == *b) a++, b++;
        if (!*b) return s;
    }
    return 0;
}

KERNEL(c_strings, 340) {
    static const char *const wanted[] = {"abba", "cabac", "aaaa", "dcba", "abcdabcd"};
    u64 digest = 0;
    for (u32 i = 0; i < TEXT - 1; i++) text[i] = random_word() % 40 ? (char)('a' + random_word() % 4) : ' ';
    text[TEXT - 1] = 0;
    CHECK(length(text) == TEXT - 1);
    for (u32 i = 0; i < ITEMS(wanted); i++)
        for (const char *at = find(text, wanted[i]); at; at = find(at + 1, wanted[i]))
            digest = mixed(digest, (u64)(at - text));
    for (u32 i = 0; i < TEXT; i++) copy[i] = text[i];
    const char *longest = "", *word = copy, *space;
    for (; (space = find_character(word, ' ')) != 0; word = space + 1) {
        copy[space - copy] = 0;
        if (length(word) > length(longest) || compare(word, longest) == 0) longest = word;
        digest = mixed(digest, (u64)(s64)compare(word, longest));
    }
    return mixed(digest, (u64)(longest - copy));
}
