#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dequantize.h"
#include "json_file.h"
#include "llama_error.h"

/* A header of the largest models has some megabytes; cJSON needs a multiple of it. */
enum { MAX_SHARDS = 4096, MAX_HEADER_BYTES = 32 << 20, MAX_INDEX_BYTES = 32 << 20, MAX_PATH = 4096 };

typedef struct shard {
  char *name;
  const uint8_t *bytes;
  size_t size;
  bool mapped;
  cJSON *header; /* holds the tensors' names */
} shard;

struct fa_safetensors {
  char *name;
  shard *shards;
  int32_t shard_count, shard_capacity;
  fa_safetensor *tensors; /* sorted by name */
  int64_t count, capacity;
};

/* Bytes of an element, and the ggml type; -1: not read here. */
static const struct dtype {
  const char *name;
  int bytes;
  int32_t type;
} dtypes[] = {{"F32", 4, FA_GGML_F32}, {"F16", 2, FA_GGML_F16}, {"BF16", 2, FA_GGML_BF16},
              {"F64", 8, -1},          {"I64", 8, -1},          {"I32", 4, -1},
              {"I16", 2, -1},          {"I8", 1, -1},           {"U64", 8, -1},
              {"U32", 4, -1},          {"U16", 2, -1},          {"U8", 1, -1},
              {"BOOL", 1, -1},         {"F8_E4M3", 1, -1},      {"F8_E5M2", 1, -1}};

static fa_status damaged(const shard *file, const cJSON *tensor, const char *what) {
  return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.200s' %s; the file is damaged", file->name,
                       tensor->string, what);
}

static fa_status read_shape(const shard *file, const cJSON *tensor, fa_safetensor *read) {
  const cJSON *shape = cJSON_GetObjectItemCaseSensitive(tensor, "shape"), *size;
  if (!cJSON_IsArray(shape)) return damaged(file, tensor, "has no shape");
  read->elements = 1;
  for (int d = 0; d < FA_SAFETENSORS_MAX_DIMS; d++) read->size[d] = 1;
  cJSON_ArrayForEach(size, shape) {
    int64_t value;
    if (read->dims == FA_SAFETENSORS_MAX_DIMS) {
      return fa_llama_fail(FA_ERROR_UNSUPPORTED, "%s: tensor '%.200s' has more than %d dimensions",
                           file->name, tensor->string, FA_SAFETENSORS_MAX_DIMS);
    }
    if (!fa_json_integer(size, 0, (int64_t)1 << 53, &value))
      return damaged(file, tensor, "has a size that is none");
    if (value && read->elements > INT64_MAX / 16 / value)
      return damaged(file, tensor, "is larger than memory can be");
    read->elements *= value;
    /* The file's last dimension is the contiguous one. */
    for (int d = read->dims++; d > 0; d--) read->size[d] = read->size[d - 1];
    read->size[0] = value;
  }
  return FA_OK;
}

static fa_status read_tensor(const shard *file, const cJSON *tensor, size_t data_at, fa_safetensor *read) {
  memset(read, 0, sizeof *read);
  if (!cJSON_IsObject(tensor)) return damaged(file, tensor, "is not described");
  read->name = tensor->string;
  const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(tensor, "dtype");
  const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(tensor, "data_offsets");
  const struct dtype *known = NULL;
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0] && cJSON_IsString(dtype); i++) {
    if (strcmp(dtypes[i].name, dtype->valuestring) == 0) known = &dtypes[i];
  }
  if (!known) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: tensor '%.200s' has dtype '%.50s', which is not known; read here: F32, F16, BF16", file->name,
        tensor->string, cJSON_IsString(dtype) ? dtype->valuestring : "");
  }
  const fa_status status = read_shape(file, tensor, read);
  if (status != FA_OK) return status;
  int64_t begin, end;
  const int64_t room = (int64_t)(file->size - data_at);
  if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
      !fa_json_integer(offsets->child, 0, INT64_MAX, &begin) ||
      !fa_json_integer(offsets->child->next, 0, INT64_MAX, &end) || end < begin) {
    return damaged(file, tensor, "has no data_offsets [begin, end]");
  }
  if (end > room) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: tensor '%.200s' ends at byte %lld of the data, which has %lld; the file is truncated or damaged",
        file->name, tensor->string, (long long)end, (long long)room);
  }
  if (end - begin != read->elements * known->bytes) {
    return fa_llama_fail(
        FA_ERROR_ARGUMENT,
        "%s: tensor '%.200s' has %lld bytes, its shape %lld elements of %d; the file is damaged", file->name,
        tensor->string, (long long)(end - begin), (long long)read->elements, known->bytes);
  }
  read->dtype = known->name;
  read->type = known->type;
  read->data = file->bytes + data_at + begin;
  read->bytes = (size_t)(end - begin);
  return FA_OK;
}

static fa_status keep(fa_safetensors *s, const fa_safetensor *tensor) {
  if (s->count == s->capacity) {
    const int64_t capacity = s->capacity ? 2 * s->capacity : 256;
    fa_safetensor *tensors = realloc(s->tensors, (size_t)capacity * sizeof *tensors);
    if (!tensors) return fa_llama_out_of_memory("the list of tensors");
    s->tensors = tensors;
    s->capacity = capacity;
  }
  s->tensors[s->count++] = *tensor;
  return FA_OK;
}

/* By place; the empty before what starts there. */
static int compare_places(const void *a, const void *b) {
  const fa_safetensor *x = a, *y = b;
  if (x->data != y->data) return (x->data > y->data) - (x->data < y->data);
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const fa_safetensor *)a)->name, ((const fa_safetensor *)b)->name);
}

static fa_status read_tensors(fa_safetensors *s, const shard *file, size_t data_at) {
  const cJSON *tensor;
  const int64_t first = s->count;
  fa_status status = FA_OK;
  cJSON_ArrayForEach(tensor, file->header) {
    fa_safetensor read;
    if (strcmp(tensor->string, "__metadata__") == 0) continue;
    status = read_tensor(file, tensor, data_at, &read);
    if (status == FA_OK) status = keep(s, &read);
    if (status != FA_OK) return status;
  }
  if (s->count > first)
    qsort(s->tensors + first, (size_t)(s->count - first), sizeof *s->tensors, compare_places);
  for (int64_t i = first + 1; i < s->count; i++) {
    const fa_safetensor *one = &s->tensors[i - 1], *next = &s->tensors[i];
    if (one->data + one->bytes > next->data) {
      return fa_llama_fail(FA_ERROR_ARGUMENT,
                           "%s: tensors '%.200s' and '%.200s' overlap; the file is damaged", file->name,
                           one->name, next->name);
    }
  }
  return FA_OK;
}

static fa_status read_shard(fa_safetensors *s, shard *file) {
  if (file->size < 8) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s has %zu bytes; a safetensors file has at least 8", file->name,
                         file->size);
  }
  uint64_t header = 0;
  for (int i = 0; i < 8; i++) header |= (uint64_t)file->bytes[i] << (8 * i);
  if (header > file->size - 8 || header > MAX_HEADER_BYTES) {
    return fa_llama_fail(FA_ERROR_ARGUMENT,
                         "%s: says that its header has %llu bytes, the file has %zu; it is no safetensors "
                         "file, truncated or damaged",
                         file->name, (unsigned long long)header, file->size);
  }
  const fa_status status =
      fa_json_parse((const char *)file->bytes + 8, (size_t)header, file->name, &file->header);
  if (status != FA_OK) return status;
  if (!cJSON_IsObject(file->header)) {
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: the header is not a JSON object; the file is damaged",
                         file->name);
  }
  return read_tensors(s, file, 8 + (size_t)header);
}

/* Takes the mapping over, also when it fails. */
static fa_status add_shard(fa_safetensors *s, const void *bytes, size_t size, const char *name, bool mapped) {
  if (s->shard_count == s->shard_capacity) {
    const int32_t capacity = s->shard_capacity ? 2 * s->shard_capacity : 4;
    shard *shards = realloc(s->shards, (size_t)capacity * sizeof *shards);
    if (shards) {
      s->shards = shards;
      s->shard_capacity = capacity;
    }
  }
  char *copy = s->shard_count < s->shard_capacity ? strdup(name) : NULL;
  if (!copy) {
    if (mapped) munmap((void *)(uintptr_t)bytes, size);
    return fa_llama_out_of_memory("a safetensors file");
  }
  shard *file = &s->shards[s->shard_count++];
  *file = (shard){copy, bytes, size, mapped, NULL};
  return read_shard(s, file);
}

static fa_status map_shard(fa_safetensors *s, const char *path) {
  struct stat about;
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fa_llama_fail(FA_ERROR_ARGUMENT, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size == 0) {
    close(file);
    return fa_llama_fail(FA_ERROR_ARGUMENT, "%s is empty or not a regular file; give a safetensors file",
                         path);
  }
  void *bytes = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  close(file);
  if (bytes == MAP_FAILED) return fa_llama_fail(FA_ERROR_MEMORY, "cannot map %s: %s", path, strerror(error));
  return add_shard(s, bytes, (size_t)about.st_size, path, true);
}

static fa_status sort_tensors(fa_safetensors *s) {
  if (s->count) qsort(s->tensors, (size_t)s->count, sizeof *s->tensors, compare_names);
  for (int64_t i = 1; i < s->count; i++) {
    if (compare_names(&s->tensors[i - 1], &s->tensors[i]) == 0) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.200s' is there twice", s->name,
                           s->tensors[i].name);
    }
  }
  return FA_OK;
}

static int compare_files(const void *a, const void *b) {
  return strcmp((*(const cJSON *const *)a)->valuestring, (*(const cJSON *const *)b)->valuestring);
}

/* The files an index names, each once, beside the index. */
static fa_status open_named(fa_safetensors *s, const char *index_path, const cJSON **places, int count) {
  const char *slash = strrchr(index_path, '/');
  const int directory = slash ? (int)(slash - index_path) + 1 : 0;
  char path[MAX_PATH];
  fa_status status = FA_OK;
  qsort(places, (size_t)count, sizeof *places, compare_files);
  for (int i = 0; i < count && status == FA_OK; i++) {
    const char *file = places[i]->valuestring;
    if (i > 0 && strcmp(file, places[i - 1]->valuestring) == 0) continue;
    if (file[0] == '\0' || strchr(file, '/') || s->shard_count == MAX_SHARDS) {
      return fa_llama_fail(FA_ERROR_ARGUMENT,
                           "%s: names the file '%.200s'; up to %d files beside it are allowed", index_path,
                           file, MAX_SHARDS);
    }
    if (snprintf(path, sizeof path, "%.*s%s", directory, index_path, file) >= (int)sizeof path) {
      return fa_llama_fail(FA_ERROR_ARGUMENT, "the path of %.200s is longer than %d bytes", file,
                           MAX_PATH - 1);
    }
    status = map_shard(s, path);
  }
  if (status == FA_OK) status = sort_tensors(s);
  for (int i = 0; i < count && status == FA_OK; i++) {
    if (!fa_safetensors_find(s, places[i]->string)) {
      status =
          fa_llama_fail(FA_ERROR_ARGUMENT, "%s: names the tensor '%.200s', which is in none of its files",
                        index_path, places[i]->string);
    }
  }
  return status;
}

static fa_status open_index(fa_safetensors *s, const char *path) {
  cJSON *index;
  fa_status status = fa_json_read_file(path, MAX_INDEX_BYTES, &index);
  if (status != FA_OK) return status;
  const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map"), *place;
  const int count = cJSON_IsObject(map) ? cJSON_GetArraySize(map) : 0;
  const cJSON **places = malloc(((size_t)count + 1) * sizeof *places);
  int found = 0;
  if (!places) status = fa_llama_out_of_memory("an index of safetensors");
  if (status == FA_OK && count == 0) {
    status =
        fa_llama_fail(FA_ERROR_ARGUMENT, "%s: has no weight_map; it is no index of safetensors files", path);
  }
  if (status == FA_OK) {
    cJSON_ArrayForEach(place, map) {
      if (!cJSON_IsString(place)) {
        status =
            fa_llama_fail(FA_ERROR_ARGUMENT, "%s: tensor '%.200s' has no file's name", path, place->string);
        break;
      }
      places[found++] = place;
    }
  }
  if (status == FA_OK) status = open_named(s, path, places, found);
  free(places);
  cJSON_Delete(index);
  return status;
}

static fa_status begin(const char *name, fa_safetensors **result) {
  fa_safetensors *s = calloc(1, sizeof *s);
  if (s) s->name = strdup(name);
  if (!s || !s->name) {
    free(s);
    return fa_llama_out_of_memory("a safetensors file");
  }
  *result = s;
  return FA_OK;
}

static fa_status end(fa_safetensors *s, fa_status status, fa_safetensors **result) {
  if (status != FA_OK)
    fa_safetensors_close(s);
  else
    *result = s;
  return status;
}

fa_status fa_safetensors_open_memory(const void *bytes, size_t size, const char *name,
                                     fa_safetensors **result) {
  fa_safetensors *s = NULL;
  fa_status status = begin(name, &s);
  if (status != FA_OK) return status;
  status = add_shard(s, bytes, size, name, false);
  if (status == FA_OK) status = sort_tensors(s);
  return end(s, status, result);
}

fa_status fa_safetensors_open(const char *path, fa_safetensors **result) {
  struct stat about;
  char inside[MAX_PATH];
  fa_safetensors *s = NULL;
  fa_status status = begin(path, &s);
  if (status != FA_OK) return status;
  if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
    if (snprintf(inside, sizeof inside, "%s/model.safetensors.index.json", path) >= (int)sizeof inside) {
      return end(s, fa_llama_fail(FA_ERROR_ARGUMENT, "a path longer than %d bytes", MAX_PATH - 1), result);
    }
    if (access(inside, F_OK) != 0) snprintf(inside, sizeof inside, "%s/model.safetensors", path);
    path = inside;
  }
  const size_t length = strlen(path);
  if (length > 5 && strcmp(path + length - 5, ".json") == 0) return end(s, open_index(s, path), result);
  status = map_shard(s, path);
  if (status == FA_OK) status = sort_tensors(s);
  return end(s, status, result);
}

void fa_safetensors_close(fa_safetensors *s) {
  if (!s) return;
  for (int32_t i = 0; i < s->shard_count; i++) {
    if (s->shards[i].mapped) munmap((void *)(uintptr_t)s->shards[i].bytes, s->shards[i].size);
    cJSON_Delete(s->shards[i].header);
    free(s->shards[i].name);
  }
  free(s->shards);
  free(s->tensors);
  free(s->name);
  free(s);
}

const char *fa_safetensors_name(const fa_safetensors *s) { return s->name; }
int64_t fa_safetensors_count(const fa_safetensors *s) { return s->count; }
const fa_safetensor *fa_safetensors_at(const fa_safetensors *s, int64_t index) { return &s->tensors[index]; }

const fa_safetensor *fa_safetensors_find(const fa_safetensors *s, const char *name) {
  const fa_safetensor wanted = {.name = name};
  return s->count ? bsearch(&wanted, s->tensors, (size_t)s->count, sizeof wanted, compare_names) : NULL;
}
