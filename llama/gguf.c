#include "gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dequantize.h"
#include "gguf_reader.h"

/* Arrays of arrays are legal and unused; each level costs a stack frame, so a hostile file may not nest
 * deeply. */
enum { MAX_ARRAY_DEPTH = 4, MAX_ALIGNMENT = 1 << 16, MAX_NAME = 65535 };

struct fa_gguf {
  char *name;
  const uint8_t *bytes;
  size_t size;
  bool mapped;
  fa_gguf_pair *pairs; /* sorted by key */
  int64_t pair_count;
  fa_gguf_tensor *tensors; /* sorted by name */
  int64_t tensor_count;
};

/* 0 for what has no fixed size. */
static size_t type_bytes(fa_gguf_type type) {
  switch (type) {
    case FA_GGUF_UINT8:
    case FA_GGUF_INT8:
    case FA_GGUF_BOOL:
      return 1;
    case FA_GGUF_UINT16:
    case FA_GGUF_INT16:
      return 2;
    case FA_GGUF_UINT32:
    case FA_GGUF_INT32:
    case FA_GGUF_FLOAT32:
      return 4;
    case FA_GGUF_UINT64:
    case FA_GGUF_INT64:
    case FA_GGUF_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

static int compare_strings(fa_gguf_string a, fa_gguf_string b) {
  const size_t shorter = a.length < b.length ? a.length : b.length;
  const int order = shorter ? memcmp(a.bytes, b.bytes, shorter) : 0;
  if (order) return order;
  return (a.length > b.length) - (a.length < b.length);
}

static int compare_pairs(const void *a, const void *b) {
  return compare_strings(((const fa_gguf_pair *)a)->key, ((const fa_gguf_pair *)b)->key);
}

static int compare_tensors(const void *a, const void *b) {
  return compare_strings(((const fa_gguf_tensor *)a)->name, ((const fa_gguf_tensor *)b)->name);
}

/* Empty tensors do not exist here, so starts differ where nothing overlaps. */
static int compare_places(const void *a, const void *b) {
  const fa_gguf_tensor *x = *(const fa_gguf_tensor *const *)a, *y = *(const fa_gguf_tensor *const *)b;
  return (x->data > y->data) - (x->data < y->data);
}

static int shown(fa_gguf_string string) { return string.length < 200 ? (int)string.length : 200; }

static fa_status read_scalar(fa_gguf_reader *reader, fa_gguf_pair *pair) {
  uint8_t raw[8] = {0};
  const fa_status status = fa_gguf_read(reader, raw, type_bytes(pair->type), "a metadata value");
  if (status != FA_OK) return status;
  int8_t i8;
  int16_t i16;
  int32_t i32;
  float f32;
  switch (pair->type) {
    case FA_GGUF_INT8:
      memcpy(&i8, raw, sizeof i8), pair->value.i = i8;
      break;
    case FA_GGUF_INT16:
      memcpy(&i16, raw, sizeof i16), pair->value.i = i16;
      break;
    case FA_GGUF_INT32:
      memcpy(&i32, raw, sizeof i32), pair->value.i = i32;
      break;
    case FA_GGUF_FLOAT32:
      memcpy(&f32, raw, sizeof f32), pair->value.f = (double)f32;
      break;
    default:
      memcpy(&pair->value, raw, sizeof raw);
      break; /* unsigned (zero-extended), INT64, FLOAT64 */
  }
  return FA_OK;
}

/* Reads the head of an array and walks over its values once, so that later walks need no checks. */
static fa_status read_array(fa_gguf_reader *reader, fa_gguf_array *array, int depth) {
  uint32_t type;
  if (depth > MAX_ARRAY_DEPTH) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: a metadata array nests deeper than %d; the file is damaged",
                         reader->name, MAX_ARRAY_DEPTH);
  }
  fa_status status = fa_gguf_read(reader, &type, sizeof type, "an array");
  if (status == FA_OK) status = fa_gguf_read(reader, &array->count, sizeof array->count, "an array");
  if (status != FA_OK) return status;
  if (type >= FA_GGUF_TYPE_COUNT) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: array of unknown type %u; known are 0 .. %d", reader->name,
                         type, FA_GGUF_TYPE_COUNT - 1);
  }
  array->type = (fa_gguf_type)type;
  array->values = reader->at;
  const size_t bytes = type_bytes(array->type);
  if (bytes) {
    if (array->count > fa_gguf_left(reader) / bytes) return fa_gguf_truncated(reader, "an array");
    reader->at += array->count * bytes;
    return FA_OK;
  }
  for (uint64_t i = 0; i < array->count && status == FA_OK; i++) {
    fa_gguf_string string;
    fa_gguf_array inner;
    status = array->type == FA_GGUF_STRING ? fa_gguf_read_string(reader, &string, "an array of strings")
                                           : read_array(reader, &inner, depth + 1);
  }
  return status;
}

static fa_status read_pair(fa_gguf_reader *reader, fa_gguf_pair *pair) {
  uint32_t type;
  fa_status status = fa_gguf_read_string(reader, &pair->key, "a metadata key");
  if (status == FA_OK) status = fa_gguf_read(reader, &type, sizeof type, "a metadata type");
  if (status != FA_OK) return status;
  if (pair->key.length == 0 || pair->key.length > MAX_NAME) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: a metadata key of %zu bytes; 1 .. %d are allowed",
                         reader->name, pair->key.length, MAX_NAME);
  }
  if (type >= FA_GGUF_TYPE_COUNT) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%.*s' has unknown type %u; known are 0 .. %d",
                         reader->name, shown(pair->key), pair->key.bytes, type, FA_GGUF_TYPE_COUNT - 1);
  }
  pair->type = (fa_gguf_type)type;
  if (pair->type == FA_GGUF_STRING)
    return fa_gguf_read_string(reader, &pair->value.string, "a metadata string");
  if (pair->type == FA_GGUF_ARRAY) return read_array(reader, &pair->value.array, 1);
  return read_scalar(reader, pair);
}

/* data holds the offset until place_tensors. */
static fa_status read_tensor(fa_gguf_reader *reader, fa_gguf_tensor *tensor, uint64_t *offset) {
  uint32_t dims, type;
  fa_status status = fa_gguf_read_string(reader, &tensor->name, "a tensor's name");
  if (status == FA_OK) status = fa_gguf_read(reader, &dims, sizeof dims, "a tensor's record");
  if (status != FA_OK) return status;
  const int length = shown(tensor->name);
  const char *name = tensor->name.bytes;
  if (tensor->name.length == 0 || tensor->name.length > MAX_NAME) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: a tensor's name of %zu bytes; 1 .. %d are allowed",
                         reader->name, tensor->name.length, MAX_NAME);
  }
  if (dims < 1 || dims > FA_GGUF_MAX_DIMS) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.*s' has %u dimensions; 1 .. %d are allowed",
                         reader->name, length, name, dims, FA_GGUF_MAX_DIMS);
  }
  tensor->dims = (int32_t)dims;
  tensor->elements = 1;
  for (uint32_t d = 0; d < FA_GGUF_MAX_DIMS; d++) {
    uint64_t size = 1;
    if (d < dims) status = fa_gguf_read(reader, &size, sizeof size, "a tensor's record");
    if (status != FA_OK) return status;
    if (size < 1 || size > (uint64_t)(INT64_MAX / tensor->elements)) {
      return fa_llama_fail(FA_ERROR_ARGUMENT,
                           "%s: tensor '%.*s' has size %llu in dimension %u; the file is damaged",
                           reader->name, length, name, (unsigned long long)size, d);
    }
    tensor->size[d] = (int64_t)size;
    tensor->elements *= (int64_t)size;
  }
  status = fa_gguf_read(reader, &type, sizeof type, "a tensor's record");
  if (status == FA_OK) status = fa_gguf_read(reader, offset, sizeof *offset, "a tensor's record");
  if (status != FA_OK) return status;
  const fa_ggml_type *ggml = type <= INT32_MAX ? fa_ggml_type_of((int32_t)type) : NULL;
  if (!ggml) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.*s' has unknown type %u; read here: %s",
                         reader->name, length, name, type, fa_ggml_types_read);
  }
  if (tensor->size[0] % ggml->block_elements) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.*s' has rows of %lld; %s needs a multiple of %d",
                         reader->name, length, name, (long long)tensor->size[0], ggml->name,
                         ggml->block_elements);
  }
  const uint64_t blocks = (uint64_t)tensor->elements / (uint64_t)ggml->block_elements;
  if (blocks > (uint64_t)SIZE_MAX / (uint64_t)ggml->block_bytes) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: tensor '%.*s' is larger than memory can be; the file is damaged", reader->name,
                         length, name);
  }
  tensor->type = (int32_t)type;
  tensor->bytes = (size_t)blocks * (size_t)ggml->block_bytes;
  return FA_OK;
}

static fa_status sort_pairs(fa_gguf *gguf) {
  qsort(gguf->pairs, (size_t)gguf->pair_count, sizeof *gguf->pairs, compare_pairs);
  for (int64_t i = 1; i < gguf->pair_count; i++) {
    if (compare_pairs(&gguf->pairs[i - 1], &gguf->pairs[i]) == 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: metadata '%.*s' is there twice", gguf->name,
                           shown(gguf->pairs[i].key), gguf->pairs[i].key.bytes);
    }
  }
  return FA_OK;
}

/* Tensors must not share bytes: two names for one weight is how a damaged offset looks. */
static fa_status check_overlap(const fa_gguf *gguf) {
  const size_t count = (size_t)gguf->tensor_count;
  if (count == 0) return FA_OK;
  const fa_gguf_tensor **places = malloc(count * sizeof *places);
  if (!places) return fa_llama_out_of_memory("the tensor list");
  for (size_t i = 0; i < count; i++) places[i] = &gguf->tensors[i];
  qsort(places, count, sizeof *places, compare_places);
  fa_status status = FA_OK;
  for (size_t i = 1; i < count && status == FA_OK; i++) {
    const fa_gguf_tensor *a = places[i - 1], *b = places[i];
    if (a->bytes > (size_t)(b->data - a->data)) {
      status = fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensors '%.*s' and '%.*s' overlap; the file is damaged",
                             gguf->name, shown(a->name), a->name.bytes, shown(b->name), b->name.bytes);
    }
  }
  free(places);
  return status;
}

static fa_status sort_tensors(fa_gguf *gguf) {
  const fa_status status = check_overlap(gguf);
  if (status != FA_OK) return status;
  qsort(gguf->tensors, (size_t)gguf->tensor_count, sizeof *gguf->tensors, compare_tensors);
  for (int64_t i = 1; i < gguf->tensor_count; i++) {
    if (compare_tensors(&gguf->tensors[i - 1], &gguf->tensors[i]) == 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.*s' is there twice", gguf->name,
                           shown(gguf->tensors[i].name), gguf->tensors[i].name.bytes);
    }
  }
  return FA_OK;
}

static fa_status read_tensors(fa_gguf *gguf, fa_gguf_reader *reader) {
  int64_t alignment = 32;
  fa_status status = fa_gguf_integer(gguf, "general.alignment", false, 1, MAX_ALIGNMENT, &alignment);
  if (status != FA_OK) return status;
  if (alignment & (alignment - 1)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: general.alignment is %lld; it must be a power of two",
                         gguf->name, (long long)alignment);
  }
  uint64_t *offsets = malloc((size_t)gguf->tensor_count * sizeof *offsets + 1);
  if (!offsets) return fa_llama_out_of_memory("the tensor list");
  for (int64_t i = 0; i < gguf->tensor_count && status == FA_OK; i++) {
    status = read_tensor(reader, &gguf->tensors[i], &offsets[i]);
  }
  const uint64_t mask = (uint64_t)alignment - 1;
  const uint64_t start = ((uint64_t)(reader->at - reader->begin) + mask) & ~mask;
  for (int64_t i = 0; i < gguf->tensor_count && status == FA_OK; i++) {
    fa_gguf_tensor *tensor = &gguf->tensors[i];
    if (offsets[i] & mask) {
      status = fa_llama_fail(FA_ERROR_ARGUMENT,
                             "%s: tensor '%.*s' starts at offset %llu; it must be a multiple of %lld",
                             gguf->name, shown(tensor->name), tensor->name.bytes,
                             (unsigned long long)offsets[i], (long long)alignment);
    } else if (start > gguf->size || offsets[i] > gguf->size - start ||
               tensor->bytes > gguf->size - start - offsets[i]) {
      status = fa_llama_fail(
          FA_ERROR_ARGUMENT,
          "%s: tensor '%.*s' of %zu bytes at offset %llu ends beyond the file (%zu bytes); it is "
          "truncated or damaged",
          gguf->name, shown(tensor->name), tensor->name.bytes, tensor->bytes, (unsigned long long)offsets[i],
          gguf->size);
    } else {
      tensor->data = gguf->bytes + start + offsets[i];
    }
  }
  free(offsets);
  return status == FA_OK ? sort_tensors(gguf) : status;
}

static fa_status parse(fa_gguf *gguf) {
  fa_gguf_reader reader = {gguf->bytes, gguf->bytes, gguf->bytes + gguf->size, gguf->name};
  uint32_t version;
  uint64_t tensors, pairs;
  if (gguf->size < 4 || memcmp(gguf->bytes, "GGUF", 4) != 0) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is not a GGUF file: it does not begin with \"GGUF\"",
                         gguf->name);
  }
  reader.at += 4;
  fa_status status = fa_gguf_read(&reader, &version, sizeof version, "the header");
  if (status == FA_OK) status = fa_gguf_read(&reader, &tensors, sizeof tensors, "the header");
  if (status == FA_OK) status = fa_gguf_read(&reader, &pairs, sizeof pairs, "the header");
  if (status != FA_OK) return status;
  if (version < 2 || version > 3) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: GGUF version %u; 2 and 3, little-endian, are read here",
                         gguf->name, version);
  }
  /* The smallest pair (empty key, one byte) and tensor record bound what the counts may make us allocate. */
  if (pairs > fa_gguf_left(&reader) / 13 || tensors > fa_gguf_left(&reader) / 32) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: says it holds %llu metadata pairs and %llu tensors, more than fit in its %zu bytes; it "
        "is truncated or damaged",
        gguf->name, (unsigned long long)pairs, (unsigned long long)tensors, gguf->size);
  }
  gguf->pairs = calloc((size_t)pairs + 1, sizeof *gguf->pairs);
  gguf->tensors = calloc((size_t)tensors + 1, sizeof *gguf->tensors);
  if (!gguf->pairs || !gguf->tensors) return fa_llama_out_of_memory("the lists of metadata and tensors");
  gguf->pair_count = (int64_t)pairs;
  gguf->tensor_count = (int64_t)tensors;
  for (int64_t i = 0; i < gguf->pair_count && status == FA_OK; i++)
    status = read_pair(&reader, &gguf->pairs[i]);
  if (status == FA_OK) status = sort_pairs(gguf);
  return status == FA_OK ? read_tensors(gguf, &reader) : status;
}

static fa_status open_bytes(const void *bytes, size_t size, const char *name, bool mapped, fa_gguf **result) {
  fa_gguf *gguf = calloc(1, sizeof *gguf);
  char *copy = strdup(name);
  if (!gguf || !copy) {
    free(gguf);
    free(copy);
    if (mapped) munmap((void *)(uintptr_t)bytes, size);
    return fa_llama_out_of_memory("a GGUF file");
  }
  gguf->name = copy;
  gguf->bytes = bytes;
  gguf->size = size;
  gguf->mapped = mapped;
  const fa_status status = parse(gguf);
  if (status != FA_OK) {
    fa_gguf_close(gguf);
    return status;
  }
  *result = gguf;
  return FA_OK;
}

fa_status fa_gguf_open_memory(const void *bytes, size_t size, const char *name, fa_gguf **gguf) {
  return open_bytes(bytes, size, name, false, gguf);
}

fa_status fa_gguf_open(const char *path, fa_gguf **gguf) {
  struct stat about;
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fa_llama_fail(FA_ERROR_ARGUMENT, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(file);
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is not a regular file; give a GGUF file", path);
  }
  if (about.st_size == 0) {
    close(file);
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is empty; give a GGUF file", path);
  }
  void *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  close(file);
  if (bytes == MAP_FAILED) return fa_llama_fail(FA_ERROR_MEMORY, "cannot map %s: %s", path, strerror(error));
  return open_bytes(bytes, (size_t)about.st_size, path, true, gguf);
}

void fa_gguf_close(fa_gguf *gguf) {
  if (!gguf) return;
  if (gguf->mapped) munmap((void *)(uintptr_t)gguf->bytes, gguf->size);
  free(gguf->name);
  free(gguf->pairs);
  free(gguf->tensors);
  free(gguf);
}

const char *fa_gguf_name(const fa_gguf *gguf) { return gguf->name; }
int64_t fa_gguf_tensor_count(const fa_gguf *gguf) { return gguf->tensor_count; }
const fa_gguf_tensor *fa_gguf_tensor_at(const fa_gguf *gguf, int64_t index) { return &gguf->tensors[index]; }

const fa_gguf_tensor *fa_gguf_find_tensor(const fa_gguf *gguf, const char *name) {
  const fa_gguf_tensor wanted = {.name = {name, strlen(name)}};
  return bsearch(&wanted, gguf->tensors, (size_t)gguf->tensor_count, sizeof wanted, compare_tensors);
}

const fa_gguf_pair *fa_gguf_find(const fa_gguf *gguf, const char *key) {
  const fa_gguf_pair wanted = {.key = {key, strlen(key)}};
  return bsearch(&wanted, gguf->pairs, (size_t)gguf->pair_count, sizeof wanted, compare_pairs);
}
