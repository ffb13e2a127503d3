/* Feeds every file of the folders named to the fuzz target it is linked with: what the fuzzers have found
 * stays found. */
#include <dirent.h>

#include "fuzz_target.h"

static void feed(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) {
    fprintf(stderr, "cannot read %s\n", path);
    exit(1);
  }
  const long size = ftell(file);
  rewind(file);
  uint8_t *bytes =
      malloc(size ? (size_t)size : 1); /* of exactly that size, so that reads beyond it are seen */
  if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size) exit(1);
  fclose(file);
  printf("%s\n", path);
  fflush(stdout); /* before what may go wrong */
  LLVMFuzzerTestOneInput(bytes, (size_t)size);
  printf("  last line so far: %s\n", fa_llama_last_error());
  free(bytes);
}

int main(int count, char **folders) {
  int fed = 0;
  for (int i = 1; i < count; i++) {
    DIR *folder = opendir(folders[i]);
    if (!folder) {
      fprintf(stderr, "no folder %s\n", folders[i]);
      return 1;
    }
    for (const struct dirent *entry; (entry = readdir(folder));) {
      char path[4096];
      if (entry->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "%s/%s", folders[i], entry->d_name);
      feed(path);
      fed++;
    }
    closedir(folder);
  }
  printf("%d files fed\n", fed);
  return fed ? 0 : 1;
}
