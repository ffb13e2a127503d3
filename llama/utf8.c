#include "utf8.h"

#include "llama.h"

size_t fa_utf8_decode(const char *bytes, size_t length, uint32_t *code, size_t *invalid) {
  const unsigned char *b = (const unsigned char *)bytes;
  size_t unused;
  if (!invalid) invalid = &unused;
  *invalid = 1;
  if (b[0] < 0x80) {
    *code = b[0];
    return 1;
  }
  const size_t wanted = b[0] >= 0xc2 && b[0] < 0xe0   ? 2
                        : b[0] >= 0xe0 && b[0] < 0xf0 ? 3
                        : b[0] >= 0xf0 && b[0] < 0xf5 ? 4
                                                      : 0;
  if (!wanted) return 0;
  /* What the second byte may be depends on the first: that excludes overlong forms, surrogates and >
   * U+10FFFF. */
  const unsigned least = b[0] == 0xe0 ? 0xa0 : b[0] == 0xf0 ? 0x90 : 0x80;
  const unsigned most = b[0] == 0xed ? 0x9f : b[0] == 0xf4 ? 0x8f : 0xbf;
  uint32_t value = b[0] & (0x7fu >> wanted);
  for (size_t i = 1; i < wanted; i++) {
    if (i == length || b[i] < (i == 1 ? least : 0x80) || b[i] > (i == 1 ? most : 0xbf)) {
      *invalid = i;
      return 0;
    }
    value = value << 6 | (b[i] & 0x3fu);
  }
  *code = value;
  return wanted;
}

size_t fa_utf8_encode(uint32_t code, char *bytes) {
  if (code < 0x80) {
    bytes[0] = (char)code;
    return 1;
  }
  const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--, code >>= 6) bytes[i] = (char)(0x80u | (code & 0x3fu));
  bytes[0] = (char)((0xf00u >> length & 0xf0u) | code);
  return length;
}

bool fa_is_space(uint32_t code) {
  return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
         code == 0x205f || code == 0x3000;
}

size_t fa_utf8_repair(const char *bytes, size_t length, char *text) {
  size_t written = 0;
  for (size_t at = 0; at < length;) {
    uint32_t code;
    size_t invalid;
    const size_t step = fa_utf8_decode(bytes + at, length - at, &code, &invalid);
    written += fa_utf8_encode(step ? code : 0xfffd, text + written);
    at += step ? step : invalid;
  }
  text[written] = '\0';
  return written;
}
