/* The .npy reader trusts nothing: the header's length, its dictionary and its shape are checked against
 * bounds and against the file before memory is asked for. */
#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the .npy reader takes the machine to be little endian"
#endif

#define MAGIC "\x93NUMPY"
enum { MAGIC_BYTES = 6, LONGEST_HEADER = 1 << 16, ALIGNMENT = 64 };

static const struct {
  const char *name;
  size_t bytes;
} types_by_number[] = {{"float32", 4}, {"float16", 2}, {"int32", 4}, {"int64", 8}, {"bool or uint8", 1}};

const char *fa_npy_type_name(fa_npy_type type) { return types_by_number[type].name; }
size_t fa_npy_type_bytes(fa_npy_type type) { return types_by_number[type].bytes; }

char *fa_npy_shape_text(int rank, const int64_t *shape, char text[FA_NPY_SHAPE_TEXT]) {
  size_t length = (size_t)snprintf(text, FA_NPY_SHAPE_TEXT, "(");
  for (int i = 0; i < rank; i++) {
    length +=
        (size_t)snprintf(text + length, FA_NPY_SHAPE_TEXT - length, "%s%" PRId64, i ? ", " : "", shape[i]);
  }
  snprintf(text + length, FA_NPY_SHAPE_TEXT - length, rank == 1 ? ",)" : ")");
  return text;
}

/* ------------------------------------------------- the header's dictionary */

typedef struct header {
  char type[16];     /* 'descr' */
  int fortran_order; /* -1: not seen */
  int rank;          /* -1: not seen */
  int64_t shape[FA_NPY_MAX_RANK];
} header;

static void skip_space(const char **at) { *at += strspn(*at, " \t\n"); }

static bool take(const char **at, char wanted) {
  skip_space(at);
  if (**at != wanted) return false;
  (*at)++;
  return true;
}

/* A Python string literal without escapes, of printable ASCII: it may end up in an error line. */
static bool take_string(const char **at, char *text, size_t size) {
  skip_space(at);
  const char quote = **at;
  if (quote != '\'' && quote != '"') return false;
  const char *const begin = ++*at;
  const size_t length = strcspn(begin, quote == '"' ? "\"\\" : "'\\");
  if (begin[length] != quote || length >= size) return false;
  for (size_t i = 0; i < length; i++) {
    if (begin[i] < ' ' || begin[i] > '~') return false;
  }
  memcpy(text, begin, length);
  text[length] = '\0';
  *at = begin + length + 1;
  return true;
}

static bool take_shape(const char **at, header *h) {
  if (!take(at, '(')) return false;
  h->rank = 0;
  while (!take(at, ')')) {
    skip_space(at);
    if (**at < '0' || **at > '9') return false;
    char *end;
    errno = 0;
    const long long size = strtoll(*at, &end, 10);
    if (errno || h->rank > FA_NPY_MAX_RANK) return false;
    if (h->rank < FA_NPY_MAX_RANK) h->shape[h->rank] = size;
    h->rank++;                         /* one more than we hold says "too many" */
    *at = *end == 'L' ? end + 1 : end; /* Python 2 wrote its long integers so */
    if (!take(at, ',')) {
      if (!take(at, ')')) return false;
      break;
    }
  }
  return true;
}

static bool parse_header(const char *text, header *h) {
  h->type[0] = '\0';
  h->fortran_order = -1;
  h->rank = -1;
  if (!take(&text, '{')) return false;
  while (!take(&text, '}')) {
    char key[24];
    if (!take_string(&text, key, sizeof key) || !take(&text, ':')) return false;
    skip_space(&text);
    if (!strcmp(key, "descr")) {
      if (*text == '[') { /* a structured type: say so by name later */
        strcpy(h->type, "structured");
        return true;
      }
      if (!take_string(&text, h->type, sizeof h->type)) return false;
    } else if (!strcmp(key, "fortran_order")) {
      const bool yes = !strncmp(text, "True", 4);
      if (!yes && strncmp(text, "False", 5) != 0) return false;
      h->fortran_order = yes;
      text += yes ? 4 : 5;
    } else if (!strcmp(key, "shape")) {
      if (!take_shape(&text, h)) return false;
    } else {
      return false;
    }
    if (!take(&text, ',')) {
      if (!take(&text, '}')) return false;
      break;
    }
  }
  return h->type[0] && h->fortran_order >= 0 && h->rank >= 0;
}

/* ------------------------------------------------------------------ reading */

static bool type_of(const char *name, fa_npy_type *type) {
  static const struct {
    const char *name;
    fa_npy_type type;
  } known[] = {{"<f4", FA_NPY_FLOAT32}, {"<f2", FA_NPY_FLOAT16}, {"<i4", FA_NPY_INT32},
               {"<i8", FA_NPY_INT64},   {"|b1", FA_NPY_BYTE},    {"|u1", FA_NPY_BYTE}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    if (!strcmp(name, known[i].name)) {
      *type = known[i].type;
      return true;
    }
  }
  return false;
}

static int refuse_type(const char *path, const char *given, unsigned allowed) {
  char names[100] = "";
  for (unsigned i = 0; i < sizeof types_by_number / sizeof types_by_number[0]; i++) {
    if (!(allowed & 1u << i)) continue;
    const size_t length = strlen(names);
    snprintf(names + length, sizeof names - length, "%s%s", length ? ", " : "", types_by_number[i].name);
  }
  return fa_usage_error("%s holds numpy type '%s'; allowed here: %s, little endian (convert it with .astype)",
                        path, given, names);
}

static int read_header(FILE *file, const char *path, header *h) {
  unsigned char start[12];
  if (fread(start, 1, 8, file) != 8 || memcmp(start, MAGIC, MAGIC_BYTES) != 0) {
    if (ferror(file)) return fa_failure("cannot read %s: %s", path, strerror(errno));
    return fa_failure("%s is not a .npy file (it does not start with \\x93NUMPY)", path);
  }
  const int version = start[6];
  if (version < 1 || version > 3) {
    return fa_failure("%s is .npy version %d.%d; versions 1 to 3 are read", path, version, start[7]);
  }
  const size_t length_bytes = version == 1 ? 2 : 4;
  uint32_t length = 0;
  if (fread(start + 8, 1, length_bytes, file) != length_bytes)
    return fa_failure("%s ends inside its header", path);
  for (size_t i = length_bytes; i-- > 0;) length = length << 8 | start[8 + i];
  if (length > LONGEST_HEADER) {
    return fa_failure("%s claims a header of %" PRIu32 " bytes; at most %d make sense: the file is damaged",
                      path, length, LONGEST_HEADER);
  }
  char *const text = malloc((size_t)length + 1);
  if (!text) return fa_failure("out of memory");
  int code = FA_EXIT_OK;
  text[length] = '\0';
  if (fread(text, 1, length, file) != length)
    code = fa_failure("%s ends inside its header", path);
  else if (!parse_header(text, h))
    code = fa_failure("%s has a damaged .npy header", path);
  free(text);
  return code;
}

static int read_array(FILE *file, const char *path, unsigned types, fa_npy *array) {
  header h;
  int code = read_header(file, path, &h);
  if (code) return code;
  if (!type_of(h.type, &array->type) || !(types & 1u << array->type)) return refuse_type(path, h.type, types);
  if (h.rank > FA_NPY_MAX_RANK) {
    return fa_usage_error("%s has more than %d dimensions; no array here has", path, FA_NPY_MAX_RANK);
  }
  if (h.fortran_order && h.rank > 1) {
    return fa_usage_error(
        "%s is in Fortran order; save it in C order: numpy.save(f, numpy.ascontiguousarray(a))", path);
  }
  array->rank = h.rank;
  size_t bytes = fa_npy_type_bytes(array->type);
  bool empty = false;
  for (int i = 0; i < h.rank; i++) empty = empty || h.shape[i] == 0;
  for (int i = 0; i < h.rank; i++) {
    array->shape[i] = h.shape[i];
    if (!empty && __builtin_mul_overflow(bytes, (size_t)h.shape[i], &bytes)) bytes = SIZE_MAX;
    if (bytes > (size_t)INT64_MAX) return fa_failure("%s claims more elements than any file can hold", path);
  }
  if (empty) bytes = 0;
  array->elements = (int64_t)(bytes / fa_npy_type_bytes(array->type));

  struct stat status;
  const off_t here = ftello(file);
  if (fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode) && here >= 0 &&
      (uintmax_t)(status.st_size - here) < bytes) {
    char shape[FA_NPY_SHAPE_TEXT];
    return fa_failure("%s is cut short: shape %s takes %zu bytes after the header and the file has %jd", path,
                      fa_npy_shape_text(h.rank, h.shape, shape), bytes, (intmax_t)(status.st_size - here));
  }
  const size_t room = (bytes / ALIGNMENT + 1) * ALIGNMENT;
  array->data = aligned_alloc(ALIGNMENT, room);
  if (!array->data) return fa_failure("no memory for the %zu bytes of %s", bytes, path);
  if (fread(array->data, 1, bytes, file) != bytes) {
    if (ferror(file)) return fa_failure("cannot read %s: %s", path, strerror(errno));
    return fa_failure("%s is cut short: %zu bytes of data were promised", path, bytes);
  }
  return FA_EXIT_OK;
}

int fa_npy_read(const char *path, unsigned types, fa_npy *array) {
  memset(array, 0, sizeof *array);
  FILE *const file = fopen(path, "rb");
  if (!file) return fa_failure("cannot read %s: %s", path, strerror(errno));
  errno = 0;
  const int code = read_array(file, path, types, array);
  fclose(file);
  if (code) fa_npy_free(array);
  return code;
}

void fa_npy_free(fa_npy *array) {
  free(array->data);
  memset(array, 0, sizeof *array);
}

/* ------------------------------------------------------------------ writing */

void fa_npy_write(fa_output *output, fa_npy_type type, int rank, const int64_t *shape, const void *data) {
  char shape_text[FA_NPY_SHAPE_TEXT];
  char text[256];
  const int used =
      snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
               type == FA_NPY_FLOAT16 ? "<f2" : "<f4", fa_npy_shape_text(rank, shape, shape_text));
  const size_t prefix = MAGIC_BYTES + 4;
  const size_t total = (prefix + (size_t)used + 1 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  const size_t length = total - prefix;
  fwrite(MAGIC "\x01", 1, MAGIC_BYTES + 2,
         output->file); /* version 1.0: the literal's own NUL is the minor */
  fputc((int)(length & 0xff), output->file);
  fputc((int)(length >> 8), output->file);
  fprintf(output->file, "%-*s\n", (int)length - 1, text);

  size_t elements = 1;
  for (int i = 0; i < rank; i++) elements *= (size_t)shape[i];
  fwrite(data, fa_npy_type_bytes(type), elements, output->file);
}
