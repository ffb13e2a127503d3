/* Text on its way from tokens to a reader: it ends at a stop string, and comes in whole characters.
 *
 * Bytes are fed as tokens bring them. Shown at once is everything that cannot be the beginning of a stop string or of an
 * unfinished character; the rest is held back until later bytes decide. A stop string ends the text as soon as its last
 * byte is there: what comes before it is shown, it and what follows are not. Where several end at the same byte, the
 * longest counts. What is shown in all is fa_utf8_repair of the text, however it was cut into pieces. */
#ifndef FA_LLAMA_STOP_TEXT_H
#define FA_LLAMA_STOP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "fastattention/fastattention.h"

/* One text; one thread at a time. */
typedef struct fa_stop_text fa_stop_text;

/* stops: `count` >= 0 strings of at least one byte each, copied. Errors: ARGUMENT, MEMORY; the line is in
 * fa_llama_last_error(). Nothing is allocated after this. */
fa_status fa_stop_text_create(const char *const *stops, int count, fa_stop_text **text);
void fa_stop_text_free(fa_stop_text *text); /* NULL is fine */

/* For another text with the same stop strings. */
void fa_stop_text_restart(fa_stop_text *text);

/* Bytes that `shown` must have room for when `length` bytes are fed, the terminator included; of length 0: for
 * fa_stop_text_flush. */
size_t fa_stop_text_room(const fa_stop_text *text, size_t length);

/* Feeds `length` >= 0 bytes. Writes what may be shown now to `shown`, terminated, and returns its length without the
 * terminator. After a stop nothing more is taken or shown. */
size_t fa_stop_text_feed(fa_stop_text *text, const char *bytes, size_t length, char *shown);

/* Whether a stop string ended the text, and which one it was: an index into stops, -1: none yet. */
int fa_stop_text_stopped_by(const fa_stop_text *text);

/* The text ends here without a stop string: what was held back, as above. Nothing is held after it. */
size_t fa_stop_text_flush(fa_stop_text *text, char *shown);

#endif
