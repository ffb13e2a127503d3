/* UTF-8, strictly: no surrogates, nothing overlong, nothing beyond U+10FFFF. */
#ifndef FA_LLAMA_UTF8_H
#define FA_LLAMA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid character that starts at bytes[0], 1 .. 4 (length >= 1), and the character in *code; 0
 * if none does, and then *invalid is how many bytes (1 .. 3) one U+FFFD stands for (the longest beginning of
 * a character, as Unicode recommends). invalid may be NULL. */
size_t fa_utf8_decode(const char *bytes, size_t length, uint32_t *code, size_t *invalid);

/* Unicode's White_Space, which \s takes. */
bool fa_is_space(uint32_t code);

/* Writes 1 .. 4 bytes, returns how many. */
size_t fa_utf8_encode(uint32_t code, char *bytes);

#endif
